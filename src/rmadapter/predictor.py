"""A method bound to a class list: images in, probabilities out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rmadapter.backbones.clip import TowerName
from rmadapter.data.images import read_image, to_rgb
from rmadapter.errors import DataError
from rmadapter.method import finish

if TYPE_CHECKING:
    from PIL.Image import Image

    from rmadapter.method import Method, Rows


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of one image."""

    image: str
    """Path, or the image's place in the input where it has none."""
    classes: tuple[str, ...]
    """The most probable classes, best first."""
    probabilities: tuple[float, ...]
    """Their probabilities, 0 to 1; over all classes they sum to 1."""
    error: str | None = None
    """Why the image could not be read; there are no classes then."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0]

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.image}: {self.error}"
        ranked = ", ".join(f"{name} {p:.1%}" for name, p in zip(self.classes, self.probabilities, strict=True))
        return f"{self.image}: {ranked}"


class Predictor:
    """A classifier over a list of class names. Owns its weights and computes text features once, so nothing goes stale.

    Args:
        method: copied; its backbone, which is frozen, is shared.
        classes: class names; may be any, not only those trained on.
        template: the prompt; None: the method's.
    """

    def __init__(self, method: Method, classes: Sequence[str], template: str | None = None) -> None:
        if isinstance(classes, str):
            raise DataError("a class list is needed", got=repr(classes), remedy="write [name, name, …]")
        self.method = copy.deepcopy(method).eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.template = template or method.template
        with torch.no_grad():
            self.text = self._pooled("text", method.begin_text(self.classes, self.template))

    def _pooled(self, tower: TowerName, rows: Rows) -> Tensor:
        return finish(self.method.backbone.tower(tower), rows, self.method)[0]

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels (b, 3, s, s) in uint8 to logits (b, c), float32."""
        inputs = self.method.backbone.preprocess.normalise(pixels.to(self.method.backbone.device))
        return self.method.head(self._pooled("image", self.method.begin("image", inputs)), self.text).logits

    def probabilities(self, images: Sequence[Image]) -> Tensor:
        """Pillow images to probabilities (b, c), on the CPU."""
        preprocess = self.method.backbone.preprocess
        return self.logits(torch.stack([preprocess(to_rgb(image)) for image in images])).softmax(dim=-1).cpu()

    def stream(
        self, images: Iterable[str | Path | Image], top: int = 5, batch_size: int = 64, skip_broken: bool = False
    ) -> Iterator[Prediction]:
        """Predictions one after another, a batch in memory at a time.

        Args:
            images: paths, or Pillow images.
            top: classes a prediction, at most.
            skip_broken: a file that cannot be read is a Prediction with ``error``, and the rest goes on.

        Raises:
            DataError: naming a file that cannot be read, unless ``skip_broken``.
        """
        if isinstance(images, str | Path):
            raise DataError("a list of images is needed", got=repr(images), remedy="write [image]")
        todo = enumerate(images)
        while batch := list(islice(todo, batch_size)):
            names = [str(image) if isinstance(image, str | Path) else str(index) for index, image in batch]
            opened = [self._open(image, skip_broken) for _, image in batch]
            yield from self._predict(names, opened, top)

    def _open(self, image: str | Path | Image, skip_broken: bool) -> Image | DataError:
        if not isinstance(image, str | Path):
            return image
        try:
            return read_image(Path(image))
        except DataError as error:
            if not skip_broken:
                raise
            return error

    def _predict(self, names: list[str], opened: list[Image | DataError], top: int) -> Iterator[Prediction]:
        whole = [image for image in opened if not isinstance(image, DataError)]
        best = self.probabilities(whole).topk(min(top, len(self.classes)), dim=-1) if whole else None
        rows = iter(zip(best.values.tolist(), best.indices.tolist(), strict=True)) if best else iter(())
        for name, image in zip(names, opened, strict=True):
            if isinstance(image, DataError):
                yield Prediction(name, (), (), image.problem)
            else:
                values, labels = next(rows)
                yield Prediction(name, tuple(self.classes[label] for label in labels), tuple(values))

    def predict(self, images: Iterable[str | Path | Image], top: int = 5, batch_size: int = 64) -> list[Prediction]:
        """Predictions for files or Pillow images, in their order.

        Raises:
            DataError: naming a file that cannot be read.
        """
        return list(self.stream(images, top, batch_size))
