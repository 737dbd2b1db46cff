"""Images that cannot be read are found before anything is drawn from a task, and left out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from rmadapter.data.task import ImageFile, Item, Split, Task
from rmadapter.errors import DataError
from rmadapter.files import csv_text

THREADS = 16
"""At most: a decoded image takes 3 bytes a pixel, and each thread holds one."""
AT_ONCE = 4096
"""Images that are handed to the threads together: each waits as an object of its own."""


class Broken(NamedTuple):
    """An image that cannot be read."""

    path: str
    """Its name in the task."""
    reason: str


def find_broken(*splits: Split, progress: Callable[[int], None] | None = None) -> list[Broken]:
    """The images that cannot be read. Every file is decoded once, by threads.

    Args:
        progress: called with the number of images checked since its last call.
    """
    broken: list[Broken] = []
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for split in splits:
            for start in range(0, len(split), AT_ONCE):
                items = split.items[start : start + AT_ONCE]
                for item, reason in zip(items, pool.map(_reason, items), strict=True):
                    if reason is not None:
                        broken.append(Broken(item.picture.name, reason))
                    if progress is not None:
                        progress(1)
    return broken


def leave_out(task: Task, broken: Sequence[Broken]) -> Task:
    """The whole task without some images.

    Raises:
        DataError: for a class that is left with no image to learn from, or with none to test on, where it had some.
    """
    if not broken:
        return task
    names = {one.path for one in broken}

    def kept(split: Split) -> tuple[Item, ...]:
        return tuple(item for item in split if item.picture.name not in names)

    left = replace(task, train_items=kept(task.train), val_items=kept(task.val), test_items=kept(task.test))
    for before, after, use in ((task.train, left.train, "to learn from"), (task.test, left.test, "to test on")):
        gone = sorted(set(before.labels) - set(after.labels))
        if gone:
            first = next(one for one in broken if one.path in {i.picture.name for i in before if i.label == gone[0]})
            raise DataError(
                f"class {task.classes[gone[0]]!r} is left with no image {use} that can be read",
                got=f"{first.path} {first.reason}",
                remedy="add images to the class, or remove it",
            )
    many = "1 image" if len(broken) == 1 else f"{len(broken)} images"
    return replace(left, note=f"{left.note}; left out: {many} that cannot be read")


def _reason(item: Item) -> str | None:
    """Why an image cannot be read, in one line; None where it can."""
    if not isinstance(item.picture, ImageFile):
        return None  # a scene of the package is drawn, not read
    try:
        item.picture.open()
    except DataError as error:
        problem = error.problem.removeprefix(f"{item.picture.path} ")
        return problem if error.got is None else f"{problem}: {error.got}"
    return None


def table(broken: Sequence[Broken]) -> str:
    """As CSV with a header: path, reason."""
    return csv_text([Broken._fields, *broken])
