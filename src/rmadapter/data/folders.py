"""Tasks from folders of images: one folder a class, or train, val and test folders of such folders.

What lies in a folder is taken in the order of names, never in the order in which a disk lists it. Links are followed;
a link that leads back into what holds it, or to an image that is there already, adds nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path

from rmadapter.data.fewshot import split_by_class
from rmadapter.data.images import is_image
from rmadapter.data.task import PHOTO, ImageFile, Item, Task
from rmadapter.errors import DataError

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Walk:
    """The images below the folders of one task, and a count of everything that is left out."""

    root: Path
    real_root: str = field(init=False)
    taken: dict[str, Path] = field(default_factory=dict)
    """Real path of every image taken, to the path under which it was found."""
    beside: int = 0
    """Images that lie where class folders do."""
    links: int = 0
    """Links that lead nowhere, back, or to what is taken already."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are not images, by suffix."""

    def __post_init__(self) -> None:
        self.real_root = os.path.realpath(self.root)

    def subfolders(self, folder: Path) -> list[Path]:
        """Folders in a folder, by name; hidden ones and those that hold the task itself are not among them."""
        found = []
        for entry in listing(folder):
            if _is(entry.is_dir):
                if self._leads_back(entry):
                    self.links += 1
                else:
                    found.append(folder / entry.name)
            elif is_image(Path(entry.name)):
                self.beside += 1
        return found

    def images(self, folder: Path) -> list[ImageFile]:
        """All images below a class's folder, by name.

        Raises:
            DataError: when an image was taken from another folder already, as links make possible: it would belong to
                two classes, or be learned from and tested on.
        """
        found = []
        visited = {os.path.realpath(folder)}
        for path, real in self._files(folder, visited):
            first = self.taken.setdefault(real, path)
            if first is path:
                found.append(ImageFile(path, path.relative_to(self.root).as_posix()))
            elif first.is_relative_to(folder):
                self.links += 1
            else:
                raise DataError(f"{path} and {first} are the same file", remedy="remove one of the two links to it")
        return sorted(found, key=lambda image: image.name)

    def _files(self, folder: Path, visited: set[str]) -> Iterator[tuple[Path, str]]:
        """(path, real path) of the images below a folder whose real path stands in ``visited`` already."""
        here = os.path.realpath(folder)
        for entry in listing(folder):
            path = folder / entry.name
            if _is(entry.is_dir):
                real = os.path.realpath(path)
                if real in visited or self._leads_back(entry):
                    self.links += 1
                else:
                    visited.add(real)
                    yield from self._files(path, visited)
            elif not _is(entry.is_file):
                self.links += entry.is_symlink()
            elif is_image(path):
                yield path, os.path.realpath(path) if entry.is_symlink() else f"{here}{os.sep}{entry.name}"
            else:
                self.others[path.suffix.lower() or "no suffix"] += 1

    def _leads_back(self, entry: os.DirEntry[str]) -> bool:
        """Whether a folder is the task's own, or one around it."""
        return entry.is_symlink() and Path(self.real_root).is_relative_to(os.path.realpath(entry.path))

    def left_out(self) -> str:
        """'; left out: …' for a task's note, or nothing."""
        kinds = [
            (self.beside, f"{self.beside} beside the class folders"),
            (self.others.total(), f"{self.others.total()} that are not images ({self.suffixes()})"),
            (self.links, f"{self.links} links that lead nowhere, back, or to images taken already"),
        ]
        said = ", ".join(text for count, text in kinds if count)
        return f"; left out: {said}" if said else ""

    def suffixes(self) -> str:
        """Of the files that are not images, the most frequent first."""
        ordered = sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{count} {suffix}" for suffix, count in ordered[:4]) + (", …" if len(ordered) > 4 else "")


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without hidden files. Raises DataError for a folder that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read", got=error.strerror) from error
    for entry in found:
        check_encodable(entry.name, folder)
    return found


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def check_encodable(name: str, where: Path | str) -> None:
    """Raise DataError for a file name that is not UTF-8: a run could not write it down, nor a terminal show it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: the name of a file is not UTF-8", got=repr(name), remedy="rename it") from None


def read_class_folders(walk: Walk, classes: list[Path], split_seed: int, template: str | None) -> Task:
    """A task from a folder whose subfolders are the classes, split 50/20/30 % a class."""
    _check_classes(walk.root, classes)
    items: list[Item] = []
    for label, path in enumerate(classes):
        before = walk.others.copy()
        found = walk.images(path)
        if len(found) < 2:
            others = walk.others - before
            raise DataError(
                f"{path} has too few images: one to learn from and one to test on are needed",
                got=f"{len(found)}"
                + (f" (and {others.total()} files of other kinds: {', '.join(others)})" if others else ""),
                remedy="add images, or remove the folder",
            )
        items += [Item(label, picture) for picture in found]
    parts = split_by_class(items, split_seed, [path.name for path in classes])
    note = f"class folders: {len(items)} images of {len(classes)} classes; {drawn(parts, split_seed)}{walk.left_out()}"
    train, val, test = (tuple(part) for part in parts)
    return Task(name_of(walk.root), _names(classes), template or PHOTO, train, val, test, note, root=walk.root)


def read_part_folders(walk: Walk, subfolders: list[Path], template: str | None) -> Task:
    """A task from train, val and test folders of class folders; the classes are those of train, which alone must be."""
    parts: dict[str, Path] = {}
    for path in subfolders:
        part = PART_NAMES[path.name.lower()]
        if part in parts:
            raise DataError(f"{walk.root} has two folders for {part}", got=f"{parts[part].name}, {path.name}")
        parts[part] = path
    if "train" not in parts:
        raise DataError(
            f"{walk.root} needs a train folder",
            got=", ".join(path.name for path in subfolders),
            remedy="put what is learned from into FOLDER/train/CLASS/",
        )
    inside = {part: walk.subfolders(path) for part, path in parts.items()}
    classes = inside["train"]
    _check_classes(parts["train"], classes)
    labels = {path.name: label for label, path in enumerate(classes)}
    items: dict[str, tuple[Item, ...]] = {"val": (), "test": ()}
    for part, folders in inside.items():
        strange = [path.name for path in folders if path.name not in labels]
        if strange:
            raise DataError(
                f"{parts[part]} has classes that {parts['train']} has not",
                got=", ".join(strange[:5]),
                remedy="give them images to learn from, or remove them",
            )
        items[part] = tuple(Item(labels[path.name], picture) for path in folders for picture in walk.images(path))
    empty = set(labels.values()) - {item.label for item in items["train"]}
    if empty:
        raise DataError(f"{classes[min(empty)]} has no images in it", remedy="add images, or remove the folder")
    if "test" in parts and not items["test"]:
        raise DataError(f"{parts['test']} has no images to test on", remedy="add images, in class folders")
    train, val, test = (items[part] for part in PARTS)
    note = (
        f"folders {', '.join(path.name for path in subfolders)}: {counts(train, val, test)} of {len(classes)} classes"
    )
    return Task(
        name_of(walk.root), _names(classes), template or PHOTO, train, val, test, note + walk.left_out(), root=walk.root
    )


def counts(train: Sized, val: Sized, test: Sized) -> str:
    """The numbers of images in words."""
    return f"{len(train)} training, {len(val)} validation and {len(test)} test images"


def drawn(parts: tuple[Sized, Sized, Sized], split_seed: int) -> str:
    """How data without a split of their own were split."""
    return f"50/20/30 % a class by seed {split_seed}: {counts(*parts)}"


def _check_classes(folder: Path, classes: list[Path]) -> None:
    if not classes:
        raise DataError(
            f"{folder} has no class folders in it",
            allowed="one folder a class, with images in it: FOLDER/red_panda/1.jpg",
            remedy="put every class's images into a folder that has the class's name",
        )
    if len(classes) == 1:
        raise DataError(
            f"{folder} has one class, and a classifier needs two",
            got=classes[0].name,
            remedy="name the folder that holds the class folders",
        )


def _names(classes: list[Path]) -> tuple[str, ...]:
    return tuple(path.name.replace("_", " ") for path in classes)


def name_of(folder: Path) -> str:
    """A task's name: its folder's, also where that is given as '.'."""
    return folder.name or folder.resolve().name
