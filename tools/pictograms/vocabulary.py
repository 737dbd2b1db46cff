"""Names of the icons of wide vocabulary sets: which words an icon's name says, and which drawings of a name to keep."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from sources import Package

MOST_DRAWINGS = 3
"""Drawings of one name that are kept of a set: line weights differ too little to be worth more."""
MOST_WORDS = 5

_STYLE = (
    r"outlined|outline|filled|fill|solid|bold|thin|light|duotone|linear|line|broken|remix|negative|rounded|sharp|"
    r"variant|static|alt|(?:one|two|three|four|five)|[0-9]+px|[0-9]+"
)
_SUFFIX = re.compile(rf"-(?:{_STYLE})$")
_PREFERRED = ("fill", "filled", "solid", "bold", "negative")
_AVOIDED = ("thin", "light", "sharp", "broken", "rounded", "remix", "24px", "line-duotone")
_BRANDS = re.compile(r"(?:^|-)(?:brand|logo|logos|alpha|numeric|file-type|letter|number)(?:-|$)")

AMBIGUOUS = {
    *("mouse", "orange", "crane", "bat", "seal", "bow", "nut", "chicken", "turkey", "pager", "date", "ring"),
    *("dash", "dress", "key", "match", "letter", "plug", "mirror", "bug", "collision", "dna", "button"),
}
"""Names of emoji that icon sets also give to something else; a drawing from a wide set is not taken for the emoji."""


def words(name: str) -> str:
    """What an icon's name says without its style, ``cat-face-bold`` is ``cat face``; empty where it says nothing."""
    name = name.lower()
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    said = re.sub(r"[-_]+", " ", name).strip()
    return said if len(said) > 2 and len(said.split()) <= MOST_WORDS and not _BRANDS.search(name) else ""


def rank(name: str) -> int:
    """Order in which the drawings of one name are kept: filled ones first, since line icons are many already."""
    if name.endswith(_AVOIDED):
        return 2
    return 0 if name.endswith(_PREFERRED) else 1


def drawings(package: Package) -> dict[str, list[str]]:
    """Words -> icon names of a set, at most ``MOST_DRAWINGS`` each."""
    found: dict[str, list[str]] = defaultdict(list)
    content: dict[str, Any] = package.json("icons.json")["icons"]
    for name, icon in content.items():
        said = words(name)
        if said and not icon.get("hidden"):
            found[said].append(name)
    return {said: sorted(names, key=rank)[:MOST_DRAWINGS] for said, names in found.items()}


def flag(code: str) -> str:
    """Hex id of the flag emoji of a two-letter country code."""
    return "-".join(f"{0x1F1E6 + ord(letter) - ord('a'):X}" for letter in code)
