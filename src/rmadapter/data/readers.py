"""Tasks from folders: class folders, or a folder with a split file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmadapter.data.fewshot import split_by_class
from rmadapter.data.images import is_image
from rmadapter.data.task import ImageFile, Item, Task
from rmadapter.errors import DataError

PHOTO = "a photo of a {}."


def read_folder(folder: Path, split_seed: int, template: str | None) -> Task:
    """A task from a folder: with ``split.json`` in it that file decides, else every subfolder is a class.

    Args:
        folder: the task's folder.
        split_seed: of the 50/20/30 split a class, where there is no split file.
        template: the prompt; None: from ``task.json`` beside the split file, or "a photo of a {}.".
    """
    if (folder / "split.json").is_file():
        return _read_split(folder, template)
    return _read_class_folders(folder, split_seed, template or PHOTO)


def _read_class_folders(folder: Path, split_seed: int, template: str) -> Task:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
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
    items: list[Item] = []
    for label, path in enumerate(classes):
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file))
        if len(files) < 2:
            raise DataError(
                f"{path} has too few images: one to learn from and one to test on are needed",
                got=len(files),
                remedy="add images, or remove the folder",
            )
        items += [Item(label, ImageFile(file, file.relative_to(folder).as_posix())) for file in files]
    train, val, test = split_by_class(items, split_seed)
    note = f"class folders; 50/20/30 % a class into train/val/test by seed {split_seed}"
    return Task(
        folder.name,
        tuple(p.name.replace("_", " ") for p in classes),
        template,
        tuple(train),
        tuple(val),
        tuple(test),
        note,
    )


def _read_split(folder: Path, template: str | None) -> Task:
    file = folder / "split.json"
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
        rows = {part: [_row(row) for row in parts[part]] for part in ("train", "val", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is not a split file",
            got=repr(error),
            allowed='{"train": [["path", label, "class name"], …], "val": […], "test": […]}',
        ) from error
    names: dict[int, str] = {}
    for path, label, name in (row for part in rows.values() for row in part):
        if names.setdefault(label, name) != name:
            raise DataError(f"{file}: label {label} has two names", got=f"{names[label]!r} and {name!r} ({path})")
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{file}: labels must be 0 to n - 1", got=f"{sorted(names)[:5]} … of {len(names)}")
    items = {part: tuple(_item(folder, path, label) for path, label, _ in rows[part]) for part in rows}
    about = _about(folder)
    return Task(
        about.get("name", folder.name),
        tuple(names[label].replace("_", " ") for label in sorted(names)),
        template or about.get("template", PHOTO),
        items["train"],
        items["val"],
        items["test"],
        "split.json",
    )


def _about(folder: Path) -> dict[str, str]:
    file = folder / "task.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON", got=str(error)) from error


def _row(row: Sequence[Any]) -> tuple[str, int, str]:
    path, label, name = row
    if not isinstance(path, str) or not isinstance(label, int) or not isinstance(name, str):
        raise TypeError(row)
    return path, label, name


def _item(folder: Path, name: str, label: int) -> Item:
    path = folder / name
    if not path.is_file():  # CoOp's split files count from the images folder
        inside = folder / "images" / name
        if not inside.is_file():
            raise DataError(f"{path} belongs to the split but is not on disk")
        path = inside
    return Item(label, ImageFile(path, name))


def read_manifest(content: dict[str, Any], folder: Path) -> Task:
    """The task that a run wrote down (``Task.manifest``), with its very split: files added since change nothing."""
    parts = {
        part: tuple(_item(folder, name, label) for name, label in content[part]) for part in ("train", "val", "test")
    }
    return Task(
        content["task"],
        tuple(content["classes"]),
        content["template"],
        parts["train"],
        parts["val"],
        parts["test"],
        content["note"],
    )
