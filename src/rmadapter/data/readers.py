"""Tasks from folders: a split file, train/val/test folders of class folders, or class folders alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rmadapter.data.fewshot import split_by_class
from rmadapter.data.images import is_image
from rmadapter.data.task import PHOTO, ImageFile, Item, Manifest, Task
from rmadapter.errors import DataError
from rmadapter.settings import Settings

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class About(Settings):
    """``task.json`` beside a split file."""

    name: str | None = None
    """Of the task; none: the folder's."""
    template: str | None = None
    """The prompt with {} for the class name; none: "a photo of a {}."."""


class SplitFile(Settings):
    """CoOp's split format: a row an image, [path, label, class name]."""

    train: tuple[tuple[str, int, str], ...]
    """Learned from."""
    val: tuple[tuple[str, int, str], ...]
    """Settings are chosen on these."""
    test: tuple[tuple[str, int, str], ...]
    """Scored on."""


def read_folder(folder: Path, split_seed: int, template: str | None) -> Task:
    """A task from a folder: a ``split.json`` in it decides, then train/val/test folders, else subfolders are classes.

    Args:
        folder: the task's folder.
        split_seed: of the 50/20/30 split a class, where the folder has no split of its own.
        template: the prompt; None: from ``task.json`` beside the split file, or "a photo of a {}.".
    """
    if (folder / "split.json").is_file():
        return _read_split(folder, template)
    subfolders = {path.name.lower(): path for path in _subfolders(folder)}
    if subfolders and subfolders.keys() <= PART_NAMES.keys():
        return _read_part_folders(folder, subfolders, template or PHOTO)
    return _read_class_folders(folder, split_seed, template or PHOTO)


def _read_class_folders(folder: Path, split_seed: int, template: str) -> Task:
    classes = _class_folders(folder)
    items: list[Item] = []
    for label, path in enumerate(classes):
        found = _images(path, folder)
        if len(found) < 2:
            raise DataError(
                f"{path} has too few images: one to learn from and one to test on are needed",
                got=len(found),
                remedy="add images, or remove the folder",
            )
        items += [Item(label, picture) for picture in found]
    train, val, test = split_by_class(items, split_seed)
    note = f"class folders; 50/20/30 % a class into train/val/test by seed {split_seed}{_left_out(folder)}"
    return Task(folder.name, _names(classes), template, tuple(train), tuple(val), tuple(test), note, root=folder)


def _read_part_folders(folder: Path, subfolders: dict[str, Path], template: str) -> Task:
    parts: dict[str, Path] = {}
    for name, path in subfolders.items():
        if PART_NAMES[name] in parts:
            raise DataError(f"{folder} has two folders for {PART_NAMES[name]}", got=", ".join(subfolders))
        parts[PART_NAMES[name]] = path
    if "train" not in parts or "test" not in parts:
        raise DataError(f"{folder} needs a train and a test folder", got=", ".join(subfolders))
    classes = _class_folders(parts["train"])
    names = [path.name for path in classes]
    items: dict[str, tuple[Item, ...]] = {"val": ()}
    for part, path in parts.items():
        strange = sorted({sub.name for sub in _subfolders(path)} - set(names))
        if strange:
            raise DataError(f"{path} has classes that {parts['train']} has not", got=", ".join(strange[:5]))
        items[part] = tuple(
            Item(label, picture) for label, name in enumerate(names) for picture in _images(path / name, folder)
        )
    note = f"folders {', '.join(sorted(path.name for path in parts.values()))}{_left_out(folder)}"
    return Task(folder.name, _names(classes), template, items["train"], items["val"], items["test"], note, root=folder)


def _read_split(folder: Path, template: str | None) -> Task:
    file = folder / "split.json"
    rows = SplitFile.read(file, DataError)
    names: dict[int, str] = {}
    seen: dict[str, str] = {}
    for part in PARTS:
        for path, label, name in getattr(rows, part):
            if names.setdefault(label, name) != name:
                raise DataError(f"{file}: label {label} has two names", got=f"{names[label]!r} and {name!r} ({path})")
            if seen.setdefault(path, part) != part:
                raise DataError(f"{file}: {path} stands in {seen[path]} and in {part}", remedy="test on other images")
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: labels must be 0 to n - 1", got=f"{sorted(names)[:5]} … of {len(names)}")
    about = About.read(folder / "task.json", DataError) if (folder / "task.json").is_file() else About()
    train, val, test = (_items(folder, ((p, label) for p, label, _ in getattr(rows, part))) for part in PARTS)
    classes = tuple(names[label].replace("_", " ") for label in sorted(names))
    chosen = template or about.template or PHOTO
    return Task(about.name or folder.name, classes, chosen, train, val, test, "split.json", root=folder)


def read_manifest(manifest: Manifest, folder: Path) -> Task:
    """The task that a run wrote down, with its very split: files added since change nothing."""
    train, val, test = (_items(folder, getattr(manifest, part)) for part in PARTS)
    return Task(manifest.task, manifest.classes, manifest.template, train, val, test, manifest.note, root=folder)


def find(folder: Path, name: str) -> Path | None:
    """The file that a split names; CoOp's split files count from the ``images`` folder."""
    return next((path for path in (folder / name, folder / "images" / name) if path.is_file()), None)


def _items(folder: Path, rows: Iterable[tuple[str, int]]) -> tuple[Item, ...]:
    items = []
    for name, label in rows:
        path = find(folder, name)
        if path is None:
            raise DataError(
                f"{folder / name} belongs to the split but is not on disk",
                remedy="restore it, or name the folder where the data are now with --data",
            )
        items.append(Item(label, ImageFile(path, name)))
    return tuple(items)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(folder: Path) -> list[Path]:
    found = _subfolders(folder)
    if not found:
        raise DataError(
            f"{folder} has no class folders in it",
            allowed="one folder a class, with images in it: FOLDER/red_panda/1.jpg",
            remedy="put every class's images into a folder that has the class's name",
        )
    if len(found) == 1:
        raise DataError(
            f"{folder} has one class, and a classifier needs two",
            got=found[0].name,
            remedy="name the folder that holds the class folders",
        )
    return found


def _names(classes: list[Path]) -> tuple[str, ...]:
    return tuple(path.name.replace("_", " ") for path in classes)


def _images(path: Path, root: Path) -> list[ImageFile]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file))
    return [ImageFile(file, file.relative_to(root).as_posix()) for file in files]


def _left_out(folder: Path) -> str:
    """A note of images that belong to no class, since they lie beside the class folders."""
    loose = sum(1 for path in folder.iterdir() if path.is_file() and is_image(path))
    return f"; left out: {loose} images beside the folders" if loose else ""
