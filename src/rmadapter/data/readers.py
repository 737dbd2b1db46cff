"""Tasks from a user's own data: which reader reads what; split files; and what a run wrote down of its task."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from rmadapter.data.folders import (
    PART_NAMES,
    PARTS,
    Walk,
    check_encodable,
    counts,
    listing,
    name_of,
    read_class_folders,
    read_part_folders,
)
from rmadapter.data.lists import SUFFIXES, read_list
from rmadapter.data.task import PHOTO, ImageFile, Item, Manifest, Task
from rmadapter.errors import DataError
from rmadapter.files import is_file
from rmadapter.settings import Settings

GONE = "restore it, or take its row out of the split"
MOVED = "restore it, or name the folder where the data are now with --data; evaluate --skip-broken scores what is there"
"""What to do about an image that a split file, and that a run's split names."""


class About(Settings):
    """``task.json`` beside a split file."""

    name: str | None = None
    """Of the task; none: the folder's, or the split file's."""
    template: str | None = None
    """The prompt with {} for the class name; none: "a photo of a {}."."""


class SplitFile(Settings):
    """CoOp's split format: a row an image, [path, label, class name]."""

    train: tuple[tuple[str, int, str], ...]
    """Learned from."""
    val: tuple[tuple[str, int, str], ...] = ()
    """Settings are chosen on these, where there are any."""
    test: tuple[tuple[str, int, str], ...] = ()
    """Scored on, likewise."""


def read_path(path: Path, split_seed: int, template: str | None) -> Task:
    """A task from a folder, a split file or a list of images.

    Of a folder ``split.json`` decides, or else the one ``split*.json`` in it; then train/val/test folders; else its
    subfolders are the classes.

    Args:
        path: the folder or the file.
        split_seed: of the 50/20/30 split a class, where there is no other.
        template: the prompt; None: from ``task.json`` beside the split file, or "a photo of a {}.".
    """
    check_encodable(str(path.resolve()), "data")
    if path.is_dir():
        return _read_folder(path, split_seed, template)
    if path.suffix.lower() == ".json":
        return _read_split(path, template, name_of(path.parent) if path.name == "split.json" else path.stem)
    if path.suffix.lower() in SUFFIXES:
        return read_list(path, split_seed, template)
    raise DataError(f"{path} is neither a folder nor a list of images", allowed="a folder, or a .json, .csv or .jsonl")


def _read_folder(folder: Path, split_seed: int, template: str | None) -> Task:
    splits = [Path(entry.name) for entry in listing(folder) if fnmatch(entry.name, "split*.json") and entry.is_file()]
    if Path("split.json") in splits:
        splits = [Path("split.json")]
    if len(splits) > 1:
        raise DataError(
            f"{folder} has several split files",
            got=", ".join(map(str, splits)),
            remedy=f"name one: {folder / splits[0]}",
        )
    if splits:
        return _read_split(folder / splits[0], template, name_of(folder))
    walk = Walk(folder)
    subfolders = walk.subfolders(folder)
    others = [path.name for path in subfolders if path.name.lower() not in PART_NAMES]
    if subfolders and not others:
        return read_part_folders(walk, subfolders, template)
    if len(subfolders) - len(others) > 1:  # one alone may be a class
        raise DataError(
            f"{folder} has train, val or test folders beside others",
            got=", ".join(path.name for path in subfolders),
            remedy="move the others out, or say by a list which image is for what",
        )
    return read_class_folders(walk, subfolders, split_seed, template)


def _read_split(file: Path, template: str | None, name: str) -> Task:
    """A task from a file in CoOp's format; paths count from its folder, or from ``images`` in it."""
    folder = file.parent
    names, rows = read_split(file)
    about = About.read(folder / "task.json", DataError) if (folder / "task.json").is_file() else About()
    train, val, test = (_items(folder, ((p, label) for p, label, _ in getattr(rows, part)), GONE) for part in PARTS)
    classes = tuple(name.replace("_", " ") for name in names)
    chosen = template or about.template or PHOTO
    note = f"{file.name}: {counts(train, val, test)} of {len(classes)} classes"
    return Task(about.name or name, classes, chosen, train, val, test, note, root=folder)


def read_split(file: Path) -> tuple[tuple[str, ...], SplitFile]:
    """Class names in label order, as a file in CoOp's format has them, and its rows.

    Raises:
        DataError: for a label with two names or none, and an image that stands in two parts.
    """
    rows = SplitFile.read(file, DataError)
    names: dict[int, str] = {}
    seen: dict[str, str] = {}
    labels: dict[str, int] = {}
    for part in PARTS:
        for path, label, given in getattr(rows, part):
            check_encodable(path, file)
            if names.setdefault(label, given) != given:
                raise DataError(f"{file}: label {label} has two names", got=f"{names[label]!r} and {given!r} ({path})")
            first = seen.setdefault(os.path.normpath(path), part)
            if first != part:
                raise DataError(f"{file}: {path} stands in {first} and in {part}", remedy="test on other images")
            if labels.setdefault(os.path.normpath(path), label) != label:
                raise DataError(f"{file}: {path} stands under two labels", remedy="remove one of the two rows")
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: labels must be 0 to n - 1", got=f"{sorted(names)[:5]} … of {len(names)}")
    if len(names) == 1:
        raise DataError(f"{file} has one class, and a classifier needs two", got=names[0])
    return tuple(names[label] for label in sorted(names)), rows


def read_manifest(manifest: Manifest, folder: Path, lost: bool = False) -> Task:
    """The task that a run wrote down, with its very split: files added since change nothing.

    Args:
        lost: files that are gone are named all the same, and whoever opens one gets the error.
    """
    train, val, test = (_items(folder, getattr(manifest, part), MOVED, lost) for part in PARTS)
    return Task(
        manifest.task,
        manifest.classes,
        manifest.template,
        train,
        val,
        test,
        manifest.note,
        root=folder,
        teacher_template=manifest.teacher_template,
    )


def find(folder: Path, name: str) -> Path | None:
    """The file that a split names; CoOp's split files count from the ``images`` folder."""
    return next((path for path in (folder / name, folder / "images" / name) if is_file(path)), None)


def _items(folder: Path, rows: Iterable[tuple[str, int]], remedy: str, lost: bool = False) -> tuple[Item, ...]:
    items = []
    for name, label in rows:
        path = find(folder, name) or (folder / name if lost else None)
        if path is None:
            raise DataError(f"{folder / name} belongs to the split but is not on disk", remedy=remedy)
        items.append(Item(label, ImageFile(path, name)))
    return tuple(items)
