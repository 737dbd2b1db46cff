"""From items to batches of pixels: augmentation and order are pure functions of (seed, epoch, index)."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Literal, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from rmadapter.backbones.preprocess import Preprocess
from rmadapter.data.task import Picture, Split
from rmadapter.errors import DataError
from rmadapter.kept import Kept

Augment = Literal["crop_flip", "randaugment", "none"]
MEMORY = 1 << 30
"""Bytes of decoded images that are kept, so that a few-shot set is decoded once and not once an epoch."""
MOST_THREADS = 16
"""That decode for evaluation and prediction."""
AHEAD = 16
"""Pictures that a thread is ahead of the model."""
NICENESS = 10
"""Of threads that decode: between 0, as the model's, and 19."""


class Batch(NamedTuple):
    """Pixels (b, 3, s, s) in uint8, or (b, v, 3, s, s) where there are several views, and labels (b,)."""

    pixels: Tensor
    labels: Tensor


def order(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch as item indices; the last, smaller one is dropped unless it is the only one."""
    indices = list(range(count))
    random.Random(f"order-{seed}-{epoch}").shuffle(indices)
    batches = [indices[i : i + batch_size] for i in range(0, count, batch_size)]
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches


class Augmented(Dataset[Batch | DataError]):
    """Training images by (epoch, index). Augmentation draws from a seed made of both, so workers change nothing.

    Args:
        views: of each image, every one augmented by itself.
        budget: bytes of decoded images that are kept, in every process that decodes.
    """

    def __init__(
        self,
        split: Split,
        preprocess: Preprocess,
        augment: Augment,
        seed: int,
        views: int = 1,
        budget: int = MEMORY,
    ) -> None:
        self.split, self.preprocess, self.seed, self.views = split, preprocess, seed, views
        self.random = None
        if augment == "crop_flip":  # the published one of CoOp and its successors
            crop = v2.RandomResizedCrop(preprocess.size, (0.08, 1.0), (3 / 4, 4 / 3), preprocess.mode, antialias=True)
            self.random = v2.Compose([crop, v2.RandomHorizontalFlip(0.5), v2.PILToTensor()])
        elif (
            augment == "randaugment"
        ):  # CoPrompt's recipe with torchvision's operations, whose strengths differ in part
            square = v2.Resize((preprocess.size, preprocess.size), preprocess.mode, antialias=True)
            self.random = v2.Compose([square, v2.RandAugment(2, 10, interpolation=preprocess.mode), v2.PILToTensor()])
        self._decoded = Kept[int, Image.Image](budget)

    def __getitem__(self, key: tuple[int, int]) -> Batch | DataError:
        try:
            return self._item(*key)
        except DataError as error:  # as a value: torch would bring it out of a worker as the text of a traceback
            return error

    def _item(self, epoch: int, index: int) -> Batch:
        label = torch.tensor(self.split.items[index].label)
        image = self._open(index)
        views = [
            self._view(image, f"augment-{self.seed}-{epoch}-{index}" + f"-{v}" * (v > 0)) for v in range(self.views)
        ]
        return Batch(views[0] if self.views == 1 else torch.stack(views), label)

    def _view(self, image: Image.Image, seed: str) -> Tensor:
        if self.random is None:
            return self.preprocess(image)
        digest = hashlib.sha256(seed.encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            return cast(Tensor, self.random(image))

    def _open(self, index: int) -> Image.Image:
        image = self._decoded.find(index)
        if image is None:
            image = self.split.items[index].picture.open()
            self._decoded.keep(index, image, 3 * image.width * image.height)
        return image


def training_batches(images: Augmented, batches: Sequence[tuple[int, list[int]]], workers: int) -> Iterator[Batch]:
    """Batches in the given order.

    Args:
        batches: (epoch, item indices), over as many epochs as wanted, so that workers start once.
        workers: processes that decode and augment; 0 does it in this one.

    Raises:
        DataError: naming an image that cannot be read.
    """
    keys = [[(epoch, index) for index in indices] for epoch, indices in batches]
    own = torch.Generator().manual_seed(0)  # else the loader draws its workers' seeds from the global generator
    ahead = 4 if workers else None
    for batch in DataLoader(
        images, batch_sampler=keys, num_workers=workers, prefetch_factor=ahead, generator=own, collate_fn=_collate
    ):
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _collate(items: list[Batch | DataError]) -> Batch | DataError:
    return next((item for item in items if isinstance(item, DataError)), None) or default_collate(items)


class Pixels:
    """Decoded pictures, kept for the next time."""

    def __init__(self, budget: int = MEMORY) -> None:
        self._kept = Kept[tuple[Picture, Preprocess], Tensor](budget)

    def __call__(self, picture: Picture, preprocess: Preprocess) -> Tensor:
        """Pixels (3, s, s) in uint8."""
        pixels = self._kept.find((picture, preprocess))
        if pixels is None:
            pixels = preprocess(picture.open())
            self._kept.keep((picture, preprocess), pixels, pixels.nbytes)
        return pixels


def decoded(
    pictures: Iterable[Picture], preprocess: Preprocess, threads: int | None = None, kept: Pixels | None = None
) -> Iterator[Tensor | DataError]:
    """Pixels (3, s, s) in uint8 of one picture after another, or the error of one that cannot be read.

    Threads decode ahead of what was asked for, since Pillow lets them run beside the model; at most ``AHEAD`` pictures
    each are in memory, however many there are.

    Args:
        threads: None: as many as there are cores, up to ``MOST_THREADS``; 0: decode in this one.
        kept: where pictures are kept for the next time.
    """
    pixels = kept or Pixels(0)

    def read(picture: Picture) -> Tensor | DataError:
        try:
            return pixels(picture, preprocess)
        except DataError as error:
            return error

    count = min(MOST_THREADS, os.cpu_count() or 1) if threads is None else threads
    if not count:
        yield from map(read, pictures)
        return
    with ThreadPoolExecutor(count, initializer=_give_way) as pool:
        waiting: deque[Future[Tensor | DataError]] = deque()
        try:
            for picture in pictures:
                waiting.append(pool.submit(read, picture))
                if len(waiting) > AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody wants the rest where an error ends the loop
            for future in waiting:
                future.cancel()


def _give_way() -> None:
    """Decode when the model does not compute: one of its threads that waits for a core keeps all the others waiting."""
    if sys.platform == "linux":  # where a thread has a niceness of its own
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, max(NICENESS, os.getpriority(os.PRIO_PROCESS, own)))


def evaluation_batches(
    split: Split,
    preprocess: Preprocess,
    batch_size: int,
    threads: int | None = None,
    kept: Pixels | None = None,
) -> Iterator[Batch]:
    """All items of a split in their order, with the backbone's own preprocessing.

    Raises:
        DataError: naming an image that cannot be read.
    """
    pixels = decoded((item.picture for item in split), preprocess, threads, kept)
    labels = iter(split.labels)
    while batch := list(islice(pixels, batch_size)):
        whole = []
        for image in batch:
            if isinstance(image, DataError):
                raise image
            whole.append(image)
        yield Batch(torch.stack(whole), torch.tensor(list(islice(labels, len(whole)))))
