"""A method bound to a class list: images in, probabilities out."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rmadapter.data.images import to_rgb
from rmadapter.data.loader import decoded
from rmadapter.data.task import ImageFile, Picture, check_class_names
from rmadapter.errors import DataError, some
from rmadapter.frame import finish

if TYPE_CHECKING:
    from PIL.Image import Image

    from rmadapter.method import Method, Rows


UNKNOWN = "unknown"
"""The label of an image whose best class is less probable than the threshold."""


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of one image."""

    image: str
    """Path, or the image's place in the input where it has none."""
    label: str | None
    """The most probable class; ``unknown`` below the threshold; None where the image could not be read."""
    classes: tuple[str, ...] = ()
    """The most probable classes, best first."""
    probabilities: tuple[float, ...] = ()
    """Their probabilities, 0 to 1; over all classes they sum to 1."""
    error: str | None = None
    """Why the image could not be read; there are no classes then."""

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.image}: {self.error}"
        ranked = ", ".join(f"{name} {p:.1%}" for name, p in zip(self.classes, self.probabilities, strict=True))
        return f"{self.image}: {f'{UNKNOWN} ({ranked})' if self.label == UNKNOWN != self.classes[0] else ranked}"


@dataclass(frozen=True, eq=False)
class Given:
    """An image of the caller's, as a Picture; like it, equal to itself alone."""

    image: Image
    name: str

    def open(self) -> Image:
        """In RGB."""
        return to_rgb(self.image)


class Predictor:
    """A classifier over a list of class names. Owns its weights and computes text features once, so nothing goes stale.

    Args:
        method: copied; its backbone, which is frozen, is shared.
        classes: class names; may be any, not only those trained on, unless the method is class-bound.
        template: the prompt; None: the method's.

    Raises:
        DataError: for a class that a class-bound method does not know.
    """

    def __init__(self, method: Method, classes: Sequence[str], template: str | None = None) -> None:
        if isinstance(classes, str):
            raise DataError("a class list is needed", got=repr(classes), remedy="write [name, name, …]")
        self.method = copy.deepcopy(method).eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.template = template or method.template
        self._columns = _columns(method, self.classes)
        # Fitted on the trained classes, a temperature helps these only: measured, it doubles the error of new ones.
        self.temperature = method.temperature if self.classes == method.classes else 1.0
        with torch.no_grad():
            of = self.classes if self._columns is None else method.classes
            rows = method.begin_text(of, self.template)
            self.text: Rows | Tensor = rows if method.conditional_text else self.method.finish_text(rows)[0]

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels (b, 3, s, s) in uint8 to logits (b, c), float32."""
        inputs = self.method.backbone.preprocess.normalise(pixels.to(self.method.backbone.device))
        image = finish(self.method.backbone.tower("image"), self.method.begin("image", inputs), self.method)[0]
        text = self.text if isinstance(self.text, Tensor) else self.method.finish_text(self.text, image)[0]
        logits = self.method.head(image, text).logits
        return logits if self._columns is None else logits[:, self._columns]

    def probabilities(self, images: Sequence[Image]) -> Tensor:
        """Pillow images to probabilities (b, c), on the CPU."""
        preprocess = self.method.backbone.preprocess
        return self._probabilities(torch.stack([preprocess(to_rgb(image)) for image in images]))

    def _probabilities(self, pixels: Tensor) -> Tensor:
        return (self.logits(pixels) / self.temperature).softmax(dim=-1).cpu()

    def stream(
        self,
        images: Iterable[str | Path | Image],
        top: int = 5,
        *,
        reject: float = 0.0,
        skip_broken: bool = False,
        batch_size: int = 64,
        threads: int | None = None,
    ) -> Iterator[Prediction]:
        """Predictions one after another; a batch and what is decoded ahead of it are in memory, and no more.

        Args:
            images: paths, or Pillow images; taken from the iterable as they are needed.
            top: classes a prediction, at most.
            reject: least probability of the best class; below it the label is ``unknown``.
            skip_broken: a file that cannot be read is a Prediction with ``error``, and the rest goes on.
            batch_size: images that the model sees at once.
            threads: that decode; None: as many as there are cores.

        Raises:
            DataError: naming a file that cannot be read, unless ``skip_broken``.
        """
        if isinstance(images, str | Path):
            raise DataError("a list of images is needed", got=repr(images), remedy="write [image]")
        names: deque[str] = deque()
        pixels = decoded(_pictures(images, names), self.method.backbone.preprocess, threads)
        while batch := list(islice(pixels, batch_size)):
            yield from self._batch([names.popleft() for _ in batch], batch, top, reject, skip_broken)

    def _batch(
        self, names: list[str], batch: list[Tensor | DataError], top: int, reject: float, skip_broken: bool
    ) -> Iterator[Prediction]:
        whole = [pixels for pixels in batch if isinstance(pixels, Tensor)]
        rows = iter(self._best(torch.stack(whole), top)) if whole else iter(())
        for name, pixels in zip(names, batch, strict=True):
            if isinstance(pixels, Tensor):
                classes, values = next(rows)
                yield Prediction(name, classes[0] if values[0] >= reject else UNKNOWN, classes, values)
            elif skip_broken:
                yield Prediction(name, None, error=pixels.problem)
            else:
                raise pixels

    def _best(self, pixels: Tensor, top: int) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        best = self._probabilities(pixels).topk(min(top, len(self.classes)), dim=-1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(tuple(self.classes[label] for label in labels), tuple(values)) for labels, values in pairs]

    def predict(
        self, images: Iterable[str | Path | Image], top: int = 5, *, reject: float = 0.0, batch_size: int = 64
    ) -> list[Prediction]:
        """Predictions for files or Pillow images, in their order; the arguments are those of ``stream``.

        Raises:
            DataError: naming a file that cannot be read.
        """
        return list(self.stream(images, top, reject=reject, batch_size=batch_size))


def _columns(method: Method, classes: tuple[str, ...]) -> list[int] | None:
    """Which of a class-bound method's logits are those of some classes; None: the method makes them for any list."""
    if not method.class_bound:
        return None
    check_class_names(classes, "class list")
    unknown = [name for name in classes if name not in method.classes]
    if unknown:
        raise DataError(
            f"{method.name} knows the classes that it was trained on, and no others",
            got=some(unknown),
            allowed=some(method.classes) if method.classes else "none yet: it is not trained",
            remedy="train it on these classes too, or use a method that takes any class names, such as rmadapter",
        )
    places = {name: [i for i, known in enumerate(method.classes) if known == name] for name in classes}
    # Of two classes that share a name (ImageNet has such), the first stands for the first and the second for the other.
    return [places[name].pop(0) if len(places[name]) > 1 else places[name][0] for name in classes]


def _pictures(images: Iterable[str | Path | Image], names: deque[str]) -> Iterator[Picture]:
    """Images as pictures, with their names put into a queue as they are taken."""
    for index, image in enumerate(images):
        named = str(image) if isinstance(image, str | Path) else str(index)
        names.append(named)
        yield ImageFile(Path(image), named) if isinstance(image, str | Path) else Given(image, named)
