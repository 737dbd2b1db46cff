"""Tasks from the public data sets of the field, as they lie on their users' disks: in CoOp's layout.

``RMADAPTER_DATA`` (``--root``) names the folder that holds all data sets: a place, so no part of a run's identity.
Class names, labels and the order of items are those of the published split, so few-shot draws are the published ones.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from rmadapter.data.catalog import PREFIX, Entry, entry, names
from rmadapter.data.catalog.readers import Listing, read
from rmadapter.data.folders import PARTS, counts
from rmadapter.data.task import ImageFile, Item, Task
from rmadapter.errors import DataError

ROOT = "RMADAPTER_DATA"
"""The environment variable."""


def root_of(name: str, root: str | Path | None = None) -> Path:
    """The folder of all data sets. Raises DataError where it was not named."""
    given = root or os.environ.get(ROOT)
    if not given:
        raise DataError(
            f"where {name} lies on this disk is not known",
            allowed=f"the folder that holds {entry(name).folder}",
            remedy=f'name it: --root DIR, load_task("{name}", root=DIR), or the environment variable {ROOT}',
        )
    return Path(given)


def place(name: str) -> Path | None:
    """Where the environment says that a public data set's images are; None for other names, or no such folder."""
    if name not in names(domains=True) or not os.environ.get(ROOT):
        return None
    known = entry(name)
    images = root_of(name) / known.folder / known.images
    return images if images.is_dir() else None


def load(name: str, root: str | Path | None = None, template: str | None = None) -> Task:
    """A public data set as a task, with the published classes, splits and template.

    A warning, and the task's note, say where it differs from what was published (other counts, another order).

    Args:
        name: with or without ``public/``.
        root: the folder that holds all data sets; None: the environment's ``RMADAPTER_DATA``.
        template: another prompt; None: the published one.

    Raises:
        DataError: for a file, a folder or an image that is missing, and where to get it.
    """
    known, name = entry(name), PREFIX + name.removeprefix(PREFIX)
    folder = root_of(name, root) / known.folder
    images = folder / known.images
    found = _read_whole(name, known, folder)
    train, val, test = (
        tuple(Item(label, ImageFile(images / path, path)) for path, label in part) for part in found.parts
    )
    classes = tuple(known.published_name(raw) for raw in found.classes)
    note = f"{found.how}: {counts(train, val, test)} of {len(classes)} classes"
    renamed = sum(raw.replace("_", " ") != published for raw, published in zip(found.classes, classes, strict=True))
    if renamed:
        note += f"; {renamed} class names put into their published form"
    different = "; ".join(differences(known, found))
    if different:
        note += f"; not as published: {different}"
        warnings.warn(f"{name} is not as published: {different}", stacklevel=2)
    own = known.teacher_template or known.template
    used = template or known.template
    return Task(name, classes, used, train, val, test, note, root=images, teacher_template=own)


def _read_whole(name: str, known: Entry, folder: Path) -> Listing:
    """What a data set's files say. Raises DataError for the first thing that is missing, with where to get it."""
    remedy = f"rmadapter data check {name} says what is needed; {known.obtained}"
    for path in (folder, *(folder / needed for needed in known.places())):
        if not path.exists():
            raise DataError(f"{name}: {path} is missing", remedy=remedy)
    found = read(known, folder)
    missing = found.missing(folder / known.images)
    if missing:
        many = f"{len(missing)} of {found.images} images"
        raise DataError(f"{name}: {many} are not in {folder / known.images}", got=f"{missing[0]}, …", remedy=remedy)
    return found


def differences(known: Entry, found: Listing) -> list[str]:
    """Where the disk says otherwise than the catalogue: numbers of classes and images, the names of labels."""
    said = []
    numbers: dict[str, tuple[int, int | None]] = {"classes": (len(found.classes), known.classes)}
    for part, rows in zip(PARTS, found.parts, strict=True):
        numbers[f"{part} images"] = (len(rows), getattr(known, part))
    for what, (here, published) in numbers.items():
        if published is not None and here != published:
            said.append(f"{here} {what} instead of {published}")
    for label, name in known.labels.items():
        if label < len(found.classes) and known.published_name(found.classes[label]) != name:
            said.append(f"class {label} is {found.classes[label]!r} instead of {name!r}")
    return said


@dataclass(frozen=True)
class Presence:
    """What ``check`` found of a data set."""

    name: str
    folder: Path
    there: dict[str, str]
    """Places that are there, to the sha256 of what decides the splits; '' for folders."""
    problems: tuple[str, ...]
    """What is missing, damaged, or not as published."""
    counts: str
    """Images and classes in words; '' where they cannot be told."""


def check(name: str, root: str | Path | None = None) -> Presence:
    """Compare a data set on disk with the catalogue; reads, and writes nothing. Raises DataError without a root."""
    known, name = entry(name), PREFIX + name.removeprefix(PREFIX)
    folder = root_of(name, root) / known.folder
    there = {needed: _sha256(folder / needed) for needed in known.places() if (folder / needed).exists()}
    problems = [f"missing: {needed}" for needed in known.places() if needed not in there]
    if problems:
        return Presence(name, folder, there, tuple(problems), "")
    try:
        found = read(known, folder)
    except DataError as error:
        return Presence(name, folder, there, (str(error),), "")
    missing = found.missing(folder / known.images)
    if missing:
        problems.append(f"missing: {len(missing)} of {found.images} images, such as {known.images}/{missing[0]}")
    problems += [f"not as published: {what}" for what in differences(known, found)]
    numbers = f"{counts(*found.parts)} of {len(found.classes)} classes"
    return Presence(name, folder, there, tuple(problems), numbers)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
