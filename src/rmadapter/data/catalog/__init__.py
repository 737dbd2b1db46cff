"""The public data sets of the field as data: ``catalog.toml`` has the facts, and Entry says what each of them means.

``readers.py`` reads the files, ``data/public.py`` makes tasks of them. A new data set in CoOp's layout is a new table.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rmadapter.errors import DataError, unknown
from rmadapter.settings import Settings

FILE = Path(__file__).with_name("catalog.toml")
PREFIX = "public/"
"""What the names of public data sets start with, as those of the package's own start with ``pictograms/``."""


class Entry(Settings):
    """A data set: where it lies below the folder of all data sets, how it is read, and what was published of it."""

    domain_of: str | None = None
    """The data set that this one shows in another domain; none: it stands for itself."""
    folder: str
    """Its folder in CoOp's layout."""
    reader: Literal["split", "aircraft", "imagenet", "wnids", "numbered"] = "split"
    """A split JSON; lists as text; or folders, of ImageNet, named by wnid, or numbered."""
    files: tuple[str, ...]
    """In ``folder``: what decides the splits and names. The first is the split JSON, where there is one."""
    images: str
    """In ``folder``: where paths of images count from."""
    folders: tuple[str, ...] = ()
    """In ``folder``: folders that must be there; none: ``images``."""
    template: str
    """The published prompt with {} for the class name."""
    teacher_template: str | None = None
    """That of a hand-written teacher (KgCoOp), where it is another."""
    classes: int
    """Their number."""
    train: int | None = None
    """Number of images; none: not known exactly, or there are none."""
    val: int | None = None
    """Number of images; none: there are none."""
    test: int
    """Number of images."""
    rule: Literal["none", "lower", "year_first", "reversed_path", "camel_split"] = "none"
    """What was done to raw names when the published split was made; see ``RULES``."""
    renamed: dict[str, str] = {}
    """Raw names to published ones."""
    dropped: tuple[str, ...] = ()
    """Raw classes that the published split leaves out."""
    labels: dict[int, str] = {}
    """Published names of some labels, to tell another order of classes."""
    obtained: str
    """Where users get it."""
    notes: str
    """How it was split, and what else to know."""

    def published_name(self, raw: str) -> str:
        """A class name in its published form, underscores as spaces; one that has it already stays as it is.

        The published code renames when it makes a split file, not when it reads one. A file that was made otherwise
        would change the prompts in silence, so names are put right whenever they are read.
        """
        return RULES[self.rule](self.renamed.get(raw, raw)).replace("_", " ")

    def places(self) -> tuple[str, ...]:
        """Files and folders that must be in ``folder``."""
        return (*self.files, *(self.folders or (self.images,)))


def _year_first(name: str) -> str:
    """'Acura TL Sedan 2012' to '2012 Acura TL Sedan'."""
    words = name.split(" ")
    return " ".join([words[-1], *words[:-1]]) if _is_year(words[-1]) and not _is_year(words[0]) else name


def _is_year(word: str) -> bool:
    return re.fullmatch(r"(19|20)\d\d", word) is not None


def _reversed_path(name: str) -> str:
    """'/a/apartment_building/outdoor' to 'outdoor apartment_building'."""
    return " ".join(reversed(name.split("/")[2:])) if name.startswith("/") else name


def _camel_split(name: str) -> str:
    """'ApplyEyeMakeup' to 'Apply_Eye_Makeup'."""
    return name if re.search("[_ ]", name) else "_".join(re.findall("[A-Z][^A-Z]*", name)) or name


RULES: dict[str, Callable[[str], str]] = {
    "none": str,
    "lower": str.lower,
    "year_first": _year_first,
    "reversed_path": _reversed_path,
    "camel_split": _camel_split,
}
"""Each leaves a published name as it is."""


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """All data sets by name, in the order of published tables."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Entry.parse(values, f"catalogue, {name}") for name, values in content.items()}


def names(domains: bool = False) -> tuple[str, ...]:
    """Full names (``public/dtd``) of the 11 data sets, ImageNet first; with ``domains`` also its four variants."""
    return tuple(f"{PREFIX}{name}" for name, entry in entries().items() if domains or entry.domain_of is None)


def entry(name: str) -> Entry:
    """A data set by name, with or without ``public/``. Raises DataError for one that is not in the catalogue."""
    short = name.removeprefix(PREFIX)
    if short not in entries():
        raise unknown("public data set", name, entries(), DataError)
    return entries()[short]
