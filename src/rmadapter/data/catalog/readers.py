"""What the files of a public data set say: class names, splits and labels, one reader a kind of layout.

Where the published code lists a folder (ImageNet and its variants) its order is the disk's; here it is that of names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rmadapter.data.catalog import Entry
from rmadapter.data.folders import PARTS, listing
from rmadapter.data.images import is_image
from rmadapter.data.readers import read_split
from rmadapter.errors import DataError
from rmadapter.files import is_file

Rows = list[tuple[str, int]]
"""Paths below the data set's images, and labels."""


class Listing(NamedTuple):
    """What a data set's files say."""

    classes: tuple[str, ...]
    """As they stand there, in label order."""
    train: Rows
    val: Rows
    test: Rows
    how: str
    """Where the splits come from."""
    found: bool = False
    """Whether the images were found on disk; otherwise files name them, and any may be missing."""

    @property
    def parts(self) -> tuple[Rows, Rows, Rows]:
        """Train, val and test."""
        return self.train, self.val, self.test

    @property
    def images(self) -> int:
        """Their number."""
        return sum(map(len, self.parts))

    def missing(self, images: Path) -> list[str]:
        """Images that are not on disk."""
        if self.found:
            return []
        return [path for rows in self.parts for path, _ in rows if not is_file(images / path)]


def read(known: Entry, folder: Path) -> Listing:
    """Class names and rows of a data set in ``folder``. Raises DataError naming a file that does not fit."""
    found = READERS[known.reader](known, folder)
    dropped = sorted(set(found.classes) & set(known.dropped))
    if dropped:
        raise DataError(
            f"{folder} has classes that the published split leaves out",
            got=", ".join(dropped),
            remedy=f"use the published split: {known.obtained}",
        )
    return found


def _split(known: Entry, folder: Path) -> Listing:
    classes, rows = read_split(folder / known.files[0])
    train, val, test = ([(path, label) for path, label, _ in getattr(rows, part)] for part in PARTS)
    return Listing(classes, train, val, test, known.files[0])


def _aircraft(known: Entry, folder: Path) -> Listing:
    """A label is a line of ``variants.txt``; the lists have '<image id> <variant>' on a line."""
    variants, *lists = (folder / name for name in known.files)
    classes = tuple(line for _, line in _lines(variants))
    labels = {name: label for label, name in enumerate(classes)}
    parts: list[Rows] = []
    for file in lists:
        rows = []
        for number, line in _lines(file):
            image, _, variant = line.partition(" ")
            if variant not in labels:
                raise DataError(f"{file}, line {number}: no variant of {variants.name}", got=repr(line))
            rows.append((f"{image}.jpg", labels[variant]))
        parts.append(rows)
    train, val, test = parts
    return Listing(classes, train, val, test, "official lists of variants")


def _imagenet(known: Entry, folder: Path) -> Listing:
    """A label is the rank of a training folder's wnid; the official validation images are the test images.

    They are CoOp's validation images too, and nothing may be chosen on test images: so there are none to choose on.
    """
    train, test = (folder / path for path in known.folders)
    wnids, names = _folders(train), _wnids(folder / known.files[0])
    strange = sorted(set(_folders(test)) - set(wnids))
    if strange:
        raise DataError(f"{test} has classes that {train} has not", got=", ".join(strange[:5]))
    rows = [_rows(part, wnids, f"{part.name}/") for part in (train, test)]
    return Listing(_named(wnids, names, train), rows[0], [], rows[1], "folders, files sorted by name", found=True)


def _by_wnid(known: Entry, folder: Path) -> Listing:
    """The classes are those that have a folder: all of ImageNet's, or 200 of them with labels of their own."""
    images = folder / known.images
    wnids = _folders(images)
    classes = _named(wnids, _wnids(folder / known.files[0]), images)
    return Listing(classes, [], [], _rows(images, wnids), "folders, for testing", found=True)


def _numbered(known: Entry, folder: Path) -> Listing:
    """Folder i has the i-th class of ImageNet, in the order of wnids."""
    images, names = folder / known.images, _wnids(folder / known.files[0])
    order = [str(label) for label in range(len(names))]
    strange = sorted(set(_folders(images)) - set(order))
    if strange:
        raise DataError(f"{images}: folders are named 0 to {len(names) - 1}", got=", ".join(strange[:5]))
    classes = tuple(names[wnid] for wnid in sorted(names))
    return Listing(classes, [], [], _rows(images, order), "numbered folders, for testing", found=True)


READERS: dict[str, Callable[[Entry, Path], Listing]] = {
    "split": _split,
    "aircraft": _aircraft,
    "imagenet": _imagenet,
    "wnids": _by_wnid,
    "numbered": _numbered,
}


def _lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text with their numbers, without empty ones."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read", got=str(error)) from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _wnids(file: Path) -> dict[str, str]:
    """``classnames.txt``: '<wnid> <name with spaces>' on a line."""
    names: dict[str, str] = {}
    for number, line in _lines(file):
        wnid, _, name = line.partition(" ")
        if not name or wnid in names:
            what = "a wnid that stands there already" if name else "no class name"
            raise DataError(f"{file}, line {number}: {what}", got=repr(line), allowed="<wnid> <name> on a line")
        names[wnid] = name.strip()
    return names


def _named(wnids: list[str], names: dict[str, str], images: Path) -> tuple[str, ...]:
    strange = [wnid for wnid in wnids if wnid not in names]
    if strange:
        raise DataError(f"{images} has folders that classnames.txt does not name", got=", ".join(strange[:5]))
    if not wnids:
        raise DataError(f"{images} has no class folders in it", allowed="one folder a class, named by its wnid")
    return tuple(names[wnid] for wnid in wnids)


def _folders(folder: Path) -> list[str]:
    return [found.name for found in listing(folder) if found.is_dir()]


def _rows(folder: Path, classes: list[str], prefix: str = "") -> Rows:
    """All images of class folders, sorted by name; a class without a folder has none."""
    return [
        (f"{prefix}{name}/{file.name}", label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for file in listing(folder / name)
        if is_image(Path(file.name))
    ]
