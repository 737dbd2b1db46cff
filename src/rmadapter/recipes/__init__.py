"""Recipes that ship with the package: one TOML file a method, sections for its worlds inside.

Top-level ``[train]`` and ``[method]`` hold the published settings, those of base-to-novel; each of ``[[cases]]`` what a
paper has otherwise for some ``protocols``, ``data`` or ``shots``, a later one over those before it;
``[pictograms.train]`` and ``[pictograms.method]`` what differs on the small world, whatever a paper has, and over them
a case that names one of its ``backbones``;
``[published.PROTOCOL]`` quotes numbers, in percent, that were not measured here, with their setting, and how ours
``differs`` whatever the user gives.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
VARIANTS = ("pictograms",)
TABLES = {"method", "train"}
CASES, PUBLISHED = "cases", "published"


class Case(NamedTuple):
    """What a recipe may say something else for."""

    protocol: str = ""
    """What is measured; '': a run by itself."""
    data: str = ""
    """The task, by the name of a public data set."""
    shots: int = 0
    """Training images a class."""
    backbone: str = ""
    """By name."""

    def fits(self, wanted: Mapping[str, Any]) -> bool:
        """Is it one of those that an entry of ``[[cases]]`` is for?"""
        own = {"protocols": self.protocol, "data": self.data, "shots": self.shots, "backbones": self.backbone}
        return all(value in wanted[key] for key, value in own.items() if key in wanted)


USUAL = Case()


def names() -> tuple[str, ...]:
    """Shipped recipes: ``method`` and ``method/variant``."""
    found = []
    for file in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        found += [file.stem, *(f"{file.stem}/{variant}" for variant in VARIANTS if variant in content)]
    return tuple(found)


def read(name: str, case: Case = USUAL) -> dict[str, Any]:
    """The recipe ``method`` or ``method/variant``, the variant over the published one; {} for no such file.

    Without a variant what the recipe says of a case is over it.
    """
    method, _, variant = name.partition("/")
    file = FOLDER / f"{method}.toml"
    if not file.is_file():
        return {}
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    base = {key: value for key, value in content.items() if key not in (*VARIANTS, CASES, PUBLISHED)}
    fitting = [entry for entry in content.get(CASES, []) if case.fits(entry) and (not variant or "backbones" in entry)]
    for changes in [content.get(variant, {}), *fitting]:
        for key in TABLES & changes.keys():
            base[key] = over(base.get(key, {}), changes[key])
    return base


def over(below: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with some settings changed.

    How long to train is said once: epochs among the changes replace updates below, and updates epochs.
    """
    lengths = ("epochs", "updates")
    kept = {key: value for key, value in below.items() if key not in lengths} if {*lengths} & {*changes} else below
    return {**kept, **changes}


def published(method: str, protocol: str) -> dict[str, Any]:
    """What is published of a method for a protocol, and in which ``setting``; {} where the recipe has no numbers."""
    file = FOLDER / f"{method}.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return dict(content.get(PUBLISHED, {}).get(protocol, {}))


def defaults(method: str, variant: str, table: str, case: Case = USUAL) -> dict[str, Any]:
    """A table (``method`` or ``train``) of a method's shipped recipe, for a variant ('' is the published one)."""
    return dict(read(f"{method}/{variant}", case).get(table, {}))
