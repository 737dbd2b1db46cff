"""Tasks: what there is to learn. No module here imports torch before an image is turned into a tensor."""

from __future__ import annotations

import os
from pathlib import Path

from rmadapter.data import catalog, pictograms, public, readers
from rmadapter.data.task import Item, Split, Task, check_template
from rmadapter.errors import DataError, nearest

__all__ = ["Item", "Split", "Task", "load_task", "public_names", "task_names"]


def task_names(domains: bool = False) -> tuple[str, ...]:
    """The tasks inside the package; with ``domains`` also those that show the same classes otherwise."""
    names = []
    for name in pictograms.task_names():
        names += [name, *(pictograms.domain_names(name) if domains else ())]
    return tuple(f"pictograms/{name}" for name in names)


def public_names(domains: bool = False) -> tuple[str, ...]:
    """The 11 public data sets, ImageNet first; with ``domains`` also ImageNet's four variants."""
    return catalog.names(domains)


def load_task(
    name: str | Path, *, root: str | Path | None = None, split_seed: int = 1, template: str | None = None
) -> Task:
    """A task by name, or from your own data.

    Args:
        name: ``pictograms/animals`` and the like (inside the package); ``public/dtd`` and the like (on your disk); a
            folder: one with a ``split.json``, one with train, val and test folders, or one whose subfolders are the
            classes; a split file (``.json``) in CoOp's format; or a list of images (``.csv``, ``.jsonl``) with path,
            label, and where wanted split and class_name.
        root: the folder that holds the public data sets, whose names then need no ``public/``; None: the environment's
            ``RMADAPTER_DATA``.
        split_seed: of the 50/20/30 split a class, for data without a split of their own.
        template: the prompt with ``{}`` for the class name; None: the task's own.

    Raises:
        DataError: for an unknown name, a template without {}, or data that are missing or cannot be used.
    """
    path = Path(name)
    if template is not None:  # an empty one is no wish for the task's own
        check_template(template)
    if str(name) in task_names(domains=True):
        task = pictograms.load(str(name).removeprefix("pictograms/"))
        return task if template is None else task.with_template(template)
    if root is not None or str(name) in public_names(domains=True):
        return public.load(str(name), root, template)
    if os.path.exists(path):  # noqa: PTH110 (False for a name that is too long, where Path raises)
        return readers.read_path(path, split_seed, template)
    raise DataError(
        f"there is no task, no folder and no file {str(name)!r}",
        allowed="a folder, a list of images, or one of " + ", ".join((*task_names(), *public_names(domains=True))),
        remedy=nearest(str(name), (*task_names(domains=True), *public_names(domains=True))),
    )
