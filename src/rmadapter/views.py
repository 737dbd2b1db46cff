"""The training images of a run, as far as nothing that trains can change them: rows that enter the first touched block,
and the teacher's features.

Where augmentation draws new views they are computed at every step; runs of a sweep that draw the same views, as those
of several settings do, share that (``SharedRows``). Where it does not, every image goes through the frozen blocks once,
before the first step, and its rows are kept for all epochs, within a budget of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rmadapter.data import loader
from rmadapter.data.loader import Augment, Augmented, training_batches
from rmadapter.data.task import Split
from rmadapter.kept import Kept
from rmadapter.method import Method, Rows

MEMORY = 2 << 30
"""Bytes of rows that are kept."""
Chosen = tuple[int, list[int]]
"""A batch before its images are drawn: the epoch, and indices of items."""


class Seen(NamedTuple):
    """A batch of images, as the method and its teacher see them."""

    rows: Rows
    """Of the first view, as ``Method.begin`` gives them."""
    teacher: Tensor | None
    """(b, d) the frozen features of the last view, L2-normalised, where the method needs a teacher."""
    labels: Tensor
    """(b,)."""


class SharedRows:
    """Frozen rows of augmented batches, and their teacher's features, from one run of a process for the next.

    Whole batches are kept, so that a run has the same bits whichever came before it. They are kept in the machine's
    memory and not the device's, which an evaluation may need.

    Args:
        budget: bytes for them.
        jobs: processes that share the machine; each takes its part of what a run keeps for itself, too.
    """

    def __init__(self, budget: int = MEMORY, jobs: int = 1) -> None:
        self.jobs = jobs
        self._run: object = None
        self._kept = Kept[Hashable, tuple[Tensor | None, ...]](budget)

    def for_run(self, key: object) -> SharedRows:
        """These rows for a run whose views, backbone and precision are what ``key`` says: emptied when that changes."""
        if self._run != key:
            self._run = key
            self._kept.clear()
        return self

    def find(self, key: Hashable) -> tuple[Tensor | None, ...] | None:
        """What was kept under a key."""
        return self._kept.find(key)

    def keep(self, key: Hashable, tensors: tuple[Tensor | None, ...]) -> None:
        """Keep it, if there is room."""
        size = sum(x.nbytes for x in tensors if x is not None)
        if self._kept.has_room(size) and self._kept.find(key) is None:
            self._kept.keep(key, tuple(None if x is None else x.cpu() for x in tensors), size)


class Views:
    """Batches of a split's images, in the views that a seed draws.

    Args:
        method: its frozen parts are used, and nothing of it that trains.
        autocast: a context for the forward pass.
        workers: processes that decode and augment; the result does not depend on it.
        shared: of runs that draw the same views; without augmentation it is not used.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        augment: Augment,
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]],
        workers: int = 0,
        shared: SharedRows | None = None,
    ) -> None:
        self.method, self.split, self.augment = method, split, augment
        self.autocast, self.workers = autocast, workers
        self.shared = SharedRows(0) if shared is None or augment == "none" else shared
        self.jobs = 1 if shared is None else shared.jobs
        self.recalled = 0
        """Images whose rows were there from another run."""
        views = 1 if augment == "none" else method.views  # all views are the same then
        budget = loader.MEMORY // max(1, workers) // self.jobs
        self.images = Augmented(split, method.backbone.preprocess, augment, seed, views, budget)

    def batches(self, plan: Sequence[Chosen], size: int, again: bool) -> Iterator[Seen]:
        """Batch after batch of (epoch, item indices).

        Args:
            size: images that go through the frozen blocks at once, where they do so before the first step. These are
                batches of their own, in the split's order, so that a resumed run gets the same bits.
            again: do images come more than once?

        Raises:
            DataError: naming an image that cannot be read.
        """
        if self.augment == "none" and again and plan:
            places = list(range(len(self.split)))
            kept = self._all([(0, places[i : i + size]) for i in range(0, len(places), size)])
            if kept is not None:
                for _, indices in plan:
                    index = torch.tensor(indices, device=kept.labels.device)
                    yield _seen(kept.rows, [None if x is None else x[index] for x in _tensors(kept)])
                return
        yield from self._computed(plan)

    def _computed(self, plan: Sequence[Chosen]) -> Iterator[Seen]:
        known = [self._known(batch) for batch in plan]
        unknown = [batch for batch, there in zip(plan, known, strict=True) if not there]
        pixels = training_batches(self.images, unknown, self.workers)
        for batch, there in zip(plan, known, strict=True):
            yield self._recall(batch) if there else self._look(batch, next(pixels).pixels)

    def _known(self, batch: Chosen) -> bool:
        """Are its rows there, and all that its teacher needs?"""
        taught = not self.method.needs_teacher or self.images.views == 1 or self._taught(batch) is not None
        return taught and self.shared.find(self._key("rows", batch)) is not None

    def _recall(self, batch: Chosen) -> Seen:
        """A known batch."""
        device = self.method.backbone.device
        x, past = (None if x is None else x.to(device) for x in self.shared.find(self._key("rows", batch)) or ())
        assert x is not None
        rows = Rows(x, self.method.frozen_until("image")[0], past)
        self.recalled += len(x)
        with self.autocast():
            teacher = self._teacher(batch, rows) if self.method.needs_teacher else None
        return Seen(rows, teacher, self._labels(batch))

    def _look(self, batch: Chosen, pixels: Tensor) -> Seen:
        """A batch of pixels (b, 3, s, s) in uint8, or (b, v, 3, s, s), through the frozen blocks."""
        backbone = self.method.backbone
        pixels = backbone.preprocess.normalise(pixels.to(backbone.device))
        with self.autocast():
            views = pixels.unbind(1) if pixels.ndim > 4 else (pixels,)
            rows = [self.method.begin("image", view) for view in views]
            teacher = self._teacher(batch, rows[-1]) if self.method.needs_teacher else None
        self.shared.keep(self._key("rows", batch), (rows[0].x, rows[0].past))
        return Seen(rows[0], teacher, self._labels(batch))

    def _teacher(self, batch: Chosen, rows: Rows) -> Tensor:
        """The teacher's features, from the rows of its view where they are not kept."""
        found = self._taught(batch)
        if found is not None:
            return found.to(self.method.backbone.device)
        found = self.method.frozen("image", rows)
        self.shared.keep(self._key("teacher", batch), (found,))
        return found

    def _taught(self, batch: Chosen) -> Tensor | None:
        return (self.shared.find(self._key("teacher", batch)) or (None,))[0]

    def _key(self, kind: str, batch: Chosen) -> Hashable:
        epoch, indices = batch
        return kind, self.method.frozen_until("image"), epoch, tuple(indices)

    def _labels(self, batch: Chosen) -> Tensor:
        return torch.tensor([self.split.items[i].label for i in batch[1]], device=self.method.backbone.device)

    def _all(self, plan: Sequence[Chosen]) -> Seen | None:
        """All images of a plan, in its order, as one batch; None where that is too much for the memory."""
        whole, done = None, 0
        for seen in self._computed(plan):
            parts = _tensors(seen)
            if whole is None:
                if (
                    sum(x.nbytes for x in parts if x is not None) / len(seen.labels) * len(self.split)
                    > MEMORY // self.jobs
                ):
                    return None
                whole = [None if x is None else x.new_empty(len(self.split), *x.shape[1:]) for x in parts]
            for every, part in zip(whole, parts, strict=True):
                if every is not None and part is not None:
                    every[done : done + len(part)] = part
            done += len(seen.labels)
        return None if whole is None else _seen(seen.rows, whole)


def _tensors(seen: Seen) -> list[Tensor | None]:
    return [seen.rows.x, seen.rows.past, seen.teacher, seen.labels]


def _seen(rows: Rows, tensors: list[Tensor | None]) -> Seen:
    """The inverse of ``_tensors``, for other images that are as far as ``rows``."""
    x, past, teacher, labels = tensors
    assert x is not None and labels is not None
    return Seen(replace(rows, x=x, past=past), teacher, labels)
