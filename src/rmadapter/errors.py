"""Errors that a user can act on: what was wrong, what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any


class UserError(Exception):
    """A mistake that the caller can mend; the command line prints it without a traceback and exits with code 2.

    Args:
        problem: what was wrong, in one sentence, naming the file or setting.
        got: what was given.
        allowed: what would have been accepted.
        about: what the setting or key means.
        remedy: what to do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        allowed: object = None,
        about: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.got, self.allowed, self.about, self.remedy = problem, got, allowed, about, remedy
        said = {"given": got, "allowed": allowed, "about": about, "do": remedy}
        lines = [f"  {name + ':':8} {value}" for name, value in said.items() if value is not None]
        super().__init__("\n".join([problem, *lines]))

    def again(self, problem: str, kind: type[UserError] | None = None) -> UserError:
        """The same with another first sentence, and of another kind where one is given."""
        return (kind or type(self))(problem, got=self.got, allowed=self.allowed, about=self.about, remedy=self.remedy)

    def __reduce__(self) -> tuple[Callable[[str], UserError], tuple[str]]:
        """So that an error of a worker process arrives whole."""
        rest: dict[str, Any] = {"got": self.got, "allowed": self.allowed, "about": self.about, "remedy": self.remedy}
        return partial(type(self), **rest), (self.problem,)


class DataError(UserError):
    """A task, a folder or an image cannot be used as it is."""


class BackboneError(UserError):
    """A backbone's name, weights or shape do not fit."""


class AdapterError(UserError):
    """An adapter on disk does not fit what it is loaded onto."""


class SettingError(UserError):
    """A setting or recipe key is unknown or out of range."""


class TrainingError(UserError):
    """Training cannot go on, for example since a loss is not finite."""


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Errors from inside name the file that the mistake stands in."""
    try:
        yield
    except UserError as error:
        raise error.again(f"{file}: {error.problem}") from error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """'Did you mean …?' for the closest of ``known``, or one that has it in its name; None where nothing is close."""
    known = list(known)
    inside = [each for each in known if len(name) > 2 and name.lower() in each.lower()]
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or inside
    return f"did you mean {match[0]!r}?" if match else None


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, and how many there are where these are not all."""
    return ", ".join(names[:most]) + (f", … ({len(names)} names)" if len(names) > most else "")


def unknown(what: str, name: str, known: Iterable[str], error: type[UserError] = SettingError) -> UserError:
    """The error for a name that is not in a list of known ones."""
    known = sorted(known)
    return error(f"unknown {what} {name!r}", allowed=", ".join(known), remedy=nearest(name, known))
