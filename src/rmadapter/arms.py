"""Arms of a sweep: methods with changed settings, from flags or from an experiment's file.

An experiment is a TOML file, so that a table of a paper or a search over settings is data::

    [[arms]]
    label = "private"                       # what tables show; without one, the method and what was changed
    method = {name = "rmadapter", shared_down = false}
    train = {updates = 300}
    grid = {"train.lr" = [0.002, 0.008]}    # one arm a combination
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rmadapter.errors import SettingError, naming
from rmadapter.methods import method_class, method_names
from rmadapter.recipe import resolve
from rmadapter.settings import Settings

SILENT = ("workers",)
"""Settings that change no score, and so no label."""


@dataclass(frozen=True)
class Arm:
    """A method with changed settings, under the label that tables show."""

    label: str
    changes: Mapping[str, Any]
    """As ``recipe.resolve`` takes them: top-level keys, and the tables ``method`` and ``train``."""


class Entry(Settings):
    """``[[arms]]`` of an experiment's file."""

    label: str = ""
    """What tables show; empty: the method's name. What a grid changes is added to it."""
    method: dict[str, Any] = {}
    """``name``, and the method's settings that differ from its shipped recipe."""
    train: dict[str, Any] = {}
    """Training settings that differ."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Values to try, by ``method.KEY`` or ``train.KEY``; every combination is an arm."""


class Experiment(Settings):
    """An experiment's file."""

    about: str = ""
    """What it asks."""
    arms: list[Entry] = Field(min_length=1)
    """What is compared."""


def arms(methods: Sequence[str], method: Mapping[str, Any], train: Mapping[str, Any]) -> list[Arm]:
    """A labelled arm a method; settings of methods go to those that have them.

    Raises:
        SettingError: for no method, or a setting that none of them has.
    """
    if not methods:
        raise SettingError("no methods are named", allowed=", ".join(method_names()))
    has = {name: set(method_class(name).Settings.model_fields) for name in methods}
    for key in method:
        if not any(key in names for names in has.values()):
            raise SettingError(f"none of the methods has a setting {key!r}", got=", ".join(methods))
    made = []
    for name in methods:
        own = {key: value for key, value in method.items() if key in has[name]}
        made.append(Arm(_label(name, {**own, **train}), {"method": {"name": name, **own}, "train": dict(train)}))
    return made


def read(file: Path) -> list[Arm]:
    """The arms of an experiment's file.

    Raises:
        SettingError: for a file that is missing or no TOML, an unknown key or method, or two arms of one label.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(f"there is no experiment {str(file)!r}", allowed="a TOML file with [[arms]]") from None
    except (OSError, ValueError) as error:
        raise SettingError(f"{file} is not a TOML file", got=str(error)) from error
    listed = content.get("arms", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise SettingError(f"{file}: arms is a list of tables", remedy="write [[arms]] above each")
    entries = [Entry.parse(entry, f"{file}, arm {number}") for number, entry in enumerate(listed, start=1)]
    found = [arm for entry in Experiment.parse({**content, "arms": entries}, str(file)).arms for arm in _arms(entry)]
    for arm in found:
        with naming(file):
            resolve(None, arm.changes)
    labels = [arm.label for arm in found]
    for label in labels:
        if labels.count(label) > 1:
            raise SettingError(f"{file}: two arms are called {label!r}", remedy="give each a label")
    return found


def _arms(entry: Entry) -> list[Arm]:
    name = str(entry.method.get("name", "rmadapter"))
    for key in entry.grid:
        if key.partition(".")[0] not in ("method", "train") or "." not in key or key == "method.name":
            raise SettingError(
                f"a grid has no key {key!r}", allowed="method.KEY and train.KEY", remedy="write [[arms]] a method"
            )
    made = []
    for values in itertools.product(*entry.grid.values()):
        chosen: dict[str, dict[str, Any]] = {"method": {}, "train": {}}
        for key, value in zip(entry.grid, values, strict=True):
            table, _, setting = key.partition(".")
            chosen[table][setting] = value
        method, train = {**entry.method, **chosen["method"], "name": name}, {**entry.train, **chosen["train"]}
        shown = {**chosen["method"], **chosen["train"]} if entry.label else {**method, **train}
        made.append(Arm(_label(entry.label or name, shown), {"method": method, "train": train}))
    return made


def _label(name: str, changes: Mapping[str, Any]) -> str:
    telling = {key: value for key, value in changes.items() if key not in ("name", *SILENT)}
    return " ".join([name, *(f"{key}={value}" for key, value in telling.items())])
