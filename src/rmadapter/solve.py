"""Fit a method at once, from frozen features of the images, instead of by steps."""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rmadapter.backbones import Backbone
from rmadapter.data.loader import Pixels, evaluation_batches
from rmadapter.data.task import Split, Task
from rmadapter.frame import begin, finish, widen
from rmadapter.method import Method
from rmadapter.progress import counter


class Solved(NamedTuple):
    """What solving did."""

    seconds: float
    images_per_second: float
    terms: dict[str, float]
    """What the method's ``solve`` returned."""


def solve(method: Method, task: Task, *, show_progress: bool = False) -> Solved:
    """Call ``method.solve`` with the task's training and validation items; the method must have been started on it."""
    started = time.perf_counter()
    terms = method.solve(task.train, task.val, partial(frozen_features, method.backbone, show_progress=show_progress))
    method.eval()
    seconds = time.perf_counter() - started
    return Solved(seconds, len(task.train) / seconds, terms)


@torch.no_grad()
def frozen_features(
    backbone: Backbone,
    split: Split,
    *,
    batch_size: int = 100,
    show_progress: bool = False,
    pixels: Pixels | None = None,
) -> Tensor:
    """Features (n, d) of a split's items in their order, L2-normalised, float32, on the CPU; without augmentation.

    Args:
        batch_size: images in memory at a time.
        show_progress: show a bar, where standard error is a terminal.
        pixels: where decoded images are kept for the next time.

    Raises:
        DataError: naming an image that cannot be read.
    """
    tower = backbone.tower("image")
    found = []
    with counter(f"features of {split.part} images", len(split), show_progress) as count:
        for batch in evaluation_batches(split, backbone.preprocess, batch_size, kept=pixels):
            inputs = backbone.preprocess.normalise(batch.pixels.to(backbone.device))
            pooled, _ = finish(tower, begin(tower, inputs, tower.depth), None)
            found.append(F.normalize(widen(pooled), dim=-1).cpu())
            count(len(batch.labels))
    return torch.cat(found)
