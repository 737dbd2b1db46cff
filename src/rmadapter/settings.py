"""Typed settings: one class a concern, every default written once with its unit or reason under it.

Unknown keys are errors that name the nearest known one. Values may come as strings (command line), so '32' is read
as 32 where a whole number is wanted, and 'none' as None where None is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rmadapter.errors import SettingError, nearest


class Settings(BaseModel):
    """Base of all settings. Frozen; a docstring under a field is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

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
                    f"{where} has no setting {key!r}",
                    allowed=", ".join(cls.model_fields) or "no settings",
                    remedy=nearest(key, cls.model_fields),
                )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"][:1])
            reason = first["msg"].removeprefix("Value error, ")
            field = cls.model_fields.get(name)
            raise SettingError(
                f"{where}: {name or 'settings'} is not valid: {reason}",
                got=repr(first["input"]) if name else None,
                remedy=field.description if field else None,
            ) from None

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            key: None
            if isinstance(value, str) and value.lower() == "none" and _optional(cls.model_fields[key].annotation)
            else value
            for key, value in values.items()
        }

    def plain(self) -> dict[str, Any]:
        """Every setting with its value, as JSON can hold it."""
        return self.model_dump(mode="json")


def _optional(annotation: Any) -> bool:
    return NoneType in get_args(annotation)
