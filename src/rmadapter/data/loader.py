"""From items to batches of pixels: augmentation and order are pure functions of (seed, epoch, index)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from rmadapter.backbones.preprocess import Preprocess
from rmadapter.data.task import Split

Augment = Literal["crop_flip", "none"]
MEMORY = 1 << 30
"""Bytes of decoded images that are kept, so that a few-shot set is decoded once and not once an epoch."""


class Batch(NamedTuple):
    """Pixels (b, 3, s, s) in uint8, and labels (b,)."""

    pixels: Tensor
    labels: Tensor


def order(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch as item indices; the last, smaller one is dropped unless it is the only one."""
    indices = list(range(count))
    random.Random(f"order-{seed}-{epoch}").shuffle(indices)
    batches = [indices[i : i + batch_size] for i in range(0, count, batch_size)]
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches


class Augmented(Dataset[Batch]):
    """Training images by (epoch, index). Augmentation draws from a seed made of both, so workers change nothing."""

    def __init__(self, split: Split, preprocess: Preprocess, augment: Augment, seed: int) -> None:
        self.split, self.preprocess, self.seed = split, preprocess, seed
        self.random = None
        if augment == "crop_flip":  # the published one of CoOp and its successors
            crop = v2.RandomResizedCrop(preprocess.size, (0.08, 1.0), (3 / 4, 4 / 3), preprocess.mode, antialias=True)
            self.random = v2.Compose([crop, v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
        self._decoded: dict[int, Image.Image] = {}
        self._bytes = 0

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        label = torch.tensor(self.split.items[index].label)
        image = self._open(index)
        if self.random is None:
            return Batch(self.preprocess(image), label)
        digest = hashlib.sha256(f"augment-{self.seed}-{epoch}-{index}".encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            return Batch(self.random(image), label)

    def _open(self, index: int) -> Image.Image:
        image = self._decoded.get(index)
        if image is None:
            image = self.split.items[index].picture.open()
            size = 3 * image.width * image.height
            if self._bytes + size <= MEMORY:
                self._decoded[index] = image
                self._bytes += size
        return image


def training_batches(images: Augmented, batches: Sequence[tuple[int, list[int]]], workers: int) -> Iterator[Batch]:
    """Batches in the given order.

    Args:
        batches: (epoch, item indices), over as many epochs as wanted, so that workers start once.
        workers: processes that decode and augment; 0 does it in this one.
    """
    keys = [[(epoch, index) for index in indices] for epoch, indices in batches]
    own = torch.Generator().manual_seed(0)  # else the loader draws its workers' seeds from the global generator
    ahead = 4 if workers else None
    yield from DataLoader(images, batch_sampler=keys, num_workers=workers, prefetch_factor=ahead, generator=own)


def evaluation_batches(split: Split, preprocess: Preprocess, batch_size: int) -> Iterator[Batch]:
    """All items of a split in their order, with the backbone's own preprocessing."""
    for start in range(0, len(split), batch_size):
        items = split.items[start : start + batch_size]
        pixels = torch.stack([preprocess(item.picture.open()) for item in items])
        yield Batch(pixels, torch.tensor([item.label for item in items]))
