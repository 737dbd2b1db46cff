"""A task as a folder: PNG files, CoOp's ``split.json``, and the template."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rmadapter.data.task import Split, Task
from rmadapter.errors import UserError
from rmadapter.files import new_folder, write_json


def export_task(task: Task, folder: str | Path, progress: Callable[[int], None] | None = None) -> Path:
    """Writes every image of a task and its split, in the format that CoOp and its descendants read.

    ``images/CLASS_NAME/PART_INDEX.png`` with a running index a class and part; ``split.json`` with
    ``{"train": [[path relative to images/, label, class name], ...], "val": ..., "test": ...}``; ``task.json`` with
    the task's name and template. The same task gives the same bytes.

    Args:
        folder: is made; must be empty.
        progress: called with the number of images written since its last call.

    Returns:
        The folder.

    Raises:
        UserError: for a folder that is not empty, or a file that cannot be written.
    """
    folder = new_folder(Path(folder))
    names = folder_names(task.classes)
    splits = {"train": task.train, "val": task.val, "test": task.test}
    entries: dict[str, list[list[object]]] = {}
    for part, split in splits.items():
        entries[part] = []
        for path, item in zip(_paths(split, part, names), split, strict=True):
            target = folder / "images" / path
            image = item.picture.open()
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                image.save(target, "PNG")
            except OSError as error:
                raise UserError(
                    f"cannot write {target}", got=error.strerror, remedy="free space or name another folder"
                ) from error
            entries[part].append([path, item.label, task.classes[item.label]])
            if progress is not None:
                progress(1)
    write_json(folder / "task.json", {"name": task.name, "template": task.template})
    # Last, so that a folder with a split.json is a whole one.
    write_json(folder / "split.json", entries)
    return folder


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """Class names as folder names that every file system takes: letters, digits, ``-`` and ``_``; unique."""
    names = [re.sub(r"[^\w-]+", "_", name).strip("_") or "class" for name in classes]
    if len({name.lower() for name in names}) == len(names):  # file systems may ignore case
        return names
    return [f"{label}_{name}" for label, name in enumerate(names)]


def _paths(split: Split, part: str, names: list[str]) -> list[str]:
    """A relative path for each item: its class's folder, and a running index a class."""
    counts = [0] * len(names)
    paths = []
    for item in split:
        paths.append(f"{names[item.label]}/{part}_{counts[item.label]:04d}.png")
        counts[item.label] += 1
    return paths
