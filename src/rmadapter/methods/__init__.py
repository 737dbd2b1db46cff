"""Methods by name. A method is a file of this folder whose class carries the file's name; nothing else registers it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

from rmadapter.errors import unknown
from rmadapter.method import Method


def method_names() -> tuple[str, ...]:
    """The files of this folder."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]) if not info.ispkg))


def method_class(name: str) -> type[Method]:
    """The method in the file ``name``. Raises SettingError for an unknown name, with the nearest known one."""
    if name not in method_names():
        raise unknown("method", name, method_names())
    module = importlib.import_module(f"rmadapter.methods.{name}")
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Method) and value.__dict__.get("name") == name:
            return value
    raise RuntimeError(f"{module.__file__} has no Method whose name is {name!r}")
