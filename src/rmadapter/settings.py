"""Typed settings: one class a concern, every default written once with its unit or reason under it.

Unknown keys are errors that name the nearest known one. Values may come as strings (command line), so '32' is read
as 32 where a whole number is wanted, and 'none' as None where None is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rmadapter.errors import DataError, SettingError, UserError, nearest
from rmadapter.files import patiently

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed; 0 is one."""


LONGEST = 200
"""Letters of a wrong value that a message shows."""


class Settings(BaseModel):
    """Base of all settings. Frozen; a docstring under a field is its help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    input_files: ClassVar[tuple[str, ...]] = ()
    """Settings that name a file: its content decides, not where it lies."""
    later: ClassVar[tuple[str, ...]] = ()
    """Settings that came after results were stored. At its default one decides nothing, so that runs keep their ids."""

    @classmethod
    def read(cls, file: Path, error: type[UserError]) -> Self:
        """Settings from a JSON file. Raises ``error``, naming the file, when it is missing, damaged or does not fit."""
        try:
            content = json.loads(patiently(lambda: file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise error(f"{file} is missing") from None
        except (OSError, ValueError) as failure:
            raise error(f"{file} cannot be read", got=str(failure), remedy="mend it, or restore it") from failure
        if not isinstance(content, Mapping):
            raise error(f"{file} is damaged: it does not hold an object")
        try:
            return cls.parse(content, str(file))
        except SettingError as failure:
            raise failure.again(failure.problem, error) from failure

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Settings from a mapping.

        Args:
            values: field names to values; left-out fields take their defaults.
            where: what the values belong to, for messages ("method rmadapter").

        Raises:
            SettingError: for an unknown key or a value that is not allowed; it names the key.
        """
        for key in values:
            if key not in cls.model_fields:
                raise SettingError(
                    f"{where}: unknown setting {key!r}",
                    allowed=", ".join(cls.model_fields) or "no settings",
                    remedy=nearest(key, cls.model_fields),
                )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"][:1])
            field = cls.model_fields.get(name)
            about = field.description if field else None
            if first["type"] == "missing" and len(first["loc"]) == 1:
                raise SettingError(f"{where}: {name} is missing", about=about) from None
            reason, got = first["msg"].removeprefix("Value error, "), repr(first["input"])
            inside = ".".join(map(str, first["loc"][1:]))
            raise SettingError(
                f"{where}: {name or 'settings'} is not valid: {f'at {inside}: ' if inside else ''}{reason}",
                got=(got if len(got) <= LONGEST else f"{got[:LONGEST]} …") if name else None,
                about=about,
            ) from None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = cls.model_fields  # an unknown key inside a table is for pydantic to refuse
        return {
            key: _from_text(value, known[key].annotation) if isinstance(value, str) and key in known else value
            for key, value in values.items()
        }

    def plain(self) -> dict[str, Any]:
        """Every setting with its value, as JSON can hold it."""
        return self.model_dump(mode="json")

    def decisive(self) -> dict[str, Any]:
        """What results hang on: every setting, with the content's hash for a file, without ``later`` ones at defaults.

        Raises:
            DataError: naming the file, when one cannot be read.
        """
        fields = type(self).model_fields
        idle = {key for key in self.later if getattr(self, key) == fields[key].default}
        kept = {key: value for key, value in self.plain().items() if key not in idle}
        named = {key: value for key, value in kept.items() if key in self.input_files and value is not None}
        return {**kept, **{key: self.content(key) for key in named}}

    def content(self, key: str) -> str:
        """What stands for a setting among ``input_files``: the hash of the file's bytes."""
        return _content(Path(str(getattr(self, key))))


def _content(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read", got=error.strerror) from error


def _from_text(value: str, annotation: Any) -> Any:
    """What pydantic does not read from a string by itself: 'none', and a number among literals."""
    choices = get_args(annotation)
    if value.lower() == "none" and NoneType in choices:
        return None
    return next((choice for choice in choices if isinstance(choice, int) and str(choice) == value), value)
