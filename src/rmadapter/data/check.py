"""Images that cannot be read are found before anything is drawn from a task, and left out of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from rmadapter.data.task import ImageFile, Item, Split, Task
from rmadapter.errors import DataError

THREADS = 16
"""At most: a decoded image takes 3 bytes a pixel, and each thread holds one."""


class Broken(NamedTuple):
    """An image that cannot be read."""

    path: str
    """Its name in the task."""
    reason: str


def without_broken(task: Task, progress: Callable[[int], None] | None = None) -> tuple[Task, list[Broken]]:
    """The task without the images that cannot be read, and a list of these. Every file is decoded once, by threads.

    Args:
        task: a whole one, before it is cut to classes and shots.
        progress: called with the number of images checked since its last call.

    Raises:
        DataError: for a class that is left with no image to learn from, or with none to test on, where it had some.
    """
    broken: list[Broken] = []
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:

        def readable(split: Split) -> tuple[Item, ...]:
            kept = []
            for item, reason in zip(split, pool.map(_reason, split), strict=True):
                if reason is None:
                    kept.append(item)
                else:
                    broken.append(Broken(item.picture.name, reason))
                if progress is not None:
                    progress(1)
            return tuple(kept)

        left = replace(
            task, train_items=readable(task.train), val_items=readable(task.val), test_items=readable(task.test)
        )
    for before, after, use in ((task.train, left.train, "to learn from"), (task.test, left.test, "to test on")):
        gone = sorted(set(before.labels) - set(after.labels))
        if gone:
            first = next(one for one in broken if one.path in {i.picture.name for i in before if i.label == gone[0]})
            raise DataError(
                f"class {task.classes[gone[0]]!r} is left with no image {use} that can be read",
                got=f"{first.path} {first.reason}",
                remedy="add images to the class, or remove it",
            )
    if broken:
        many = "1 image" if len(broken) == 1 else f"{len(broken)} images"
        left = replace(left, note=f"{left.note}; left out: {many} that cannot be read")
    return left, broken


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


def table(broken: list[Broken]) -> str:
    """As CSV with a header: path, reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Broken._fields, *broken])
    return text.getvalue()
