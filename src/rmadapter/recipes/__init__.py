"""Recipes that ship with the package: one TOML file a method, sections for its worlds inside.

Top-level ``[train]`` and ``[method]`` hold the published settings, those of base-to-novel; ``[PROTOCOL.train]`` and
``[PROTOCOL.method]`` what a paper has otherwise for another protocol; ``[pictograms.train]`` and
``[pictograms.method]`` what differs on the small world, under every protocol; ``[published.PROTOCOL]`` quotes numbers,
in percent, that were not measured here, with their setting, and how ours ``differs`` whatever the user gives.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
VARIANTS = ("pictograms",)
PROTOCOLS = ("cross-dataset", "domain-generalization", "few-shot")
"""For which a recipe may say something else."""
PUBLISHED = "published"


def names() -> tuple[str, ...]:
    """Shipped recipes: ``method`` and ``method/variant``."""
    found = []
    for file in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        found += [file.stem, *(f"{file.stem}/{variant}" for variant in VARIANTS if variant in content)]
    return tuple(found)


def read(name: str, protocol: str = "") -> dict[str, Any]:
    """The recipe ``method`` or ``method/variant``, the variant over the published one; {} for no such file.

    Without a variant what the recipe says of a protocol is over it.
    """
    method, _, variant = name.partition("/")
    file = FOLDER / f"{method}.toml"
    if not file.is_file():
        return {}
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    changes = content.get(variant or protocol, {})
    base = {key: value for key, value in content.items() if key not in (*VARIANTS, *PROTOCOLS, PUBLISHED)}
    for key, value in changes.items():
        base[key] = over(base.get(key, {}), value) if isinstance(value, dict) else value
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


def defaults(method: str, variant: str, table: str, protocol: str = "") -> dict[str, Any]:
    """A table (``method`` or ``train``) of a method's shipped recipe, for a variant ('' is the published one)."""
    return dict(read(f"{method}/{variant}", protocol).get(table, {}))
