"""The training images of a run, as far as nothing that trains can change them: rows that enter the first touched block,
and the teacher's features.

Where augmentation draws new views they are computed at every step. Where it does not, every image goes through the
frozen blocks once, before the first step, and its rows are kept for all epochs, within a budget of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from rmadapter.data.loader import Augment, Augmented, training_batches
from rmadapter.data.task import Split
from rmadapter.method import Method, Rows

MEMORY = 2 << 30
"""Bytes of rows that are kept."""


class Seen(NamedTuple):
    """A batch of images, as the method and its teacher see them."""

    rows: Rows
    """Of the first view, as ``Method.begin`` gives them."""
    teacher: Tensor | None
    """(b, d) the frozen features of the last view, L2-normalised, where the method needs a teacher."""
    labels: Tensor
    """(b,)."""


class Views:
    """Batches of a split's images, in the views that a seed draws.

    Args:
        method: its frozen parts are used, and nothing of it that trains.
        autocast: a context for the forward pass.
        workers: processes that decode and augment; the result does not depend on it.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        augment: Augment,
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]],
        workers: int = 0,
    ) -> None:
        self.method, self.split, self.augment = method, split, augment
        self.autocast, self.workers = autocast, workers
        views = 1 if augment == "none" else method.views  # all views are the same then
        self.images = Augmented(split, method.backbone.preprocess, augment, seed, views)

    def batches(self, plan: Sequence[tuple[int, list[int]]], size: int, again: bool) -> Iterator[Seen]:
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

    def _computed(self, plan: Sequence[tuple[int, list[int]]]) -> Iterator[Seen]:
        backbone = self.method.backbone
        for batch in training_batches(self.images, plan, self.workers):
            pixels = backbone.preprocess.normalise(batch.pixels.to(backbone.device))
            with self.autocast():
                views = pixels.unbind(1) if pixels.ndim > 4 else (pixels,)
                rows = [self.method.begin("image", view) for view in views]
                teacher = self.method.frozen("image", rows[-1]) if self.method.needs_teacher else None
            yield Seen(rows[0], teacher, batch.labels.to(pixels.device))

    def _all(self, plan: Sequence[tuple[int, list[int]]]) -> Seen | None:
        """All images of a plan, in its order, as one batch; None where they would take more than ``MEMORY`` bytes."""
        whole, done = None, 0
        for seen in self._computed(plan):
            parts = _tensors(seen)
            if whole is None:
                if sum(x.nbytes for x in parts if x is not None) / len(seen.labels) * len(self.split) > MEMORY:
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
