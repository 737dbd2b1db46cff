"""A predictor on a split: scores in percent, and what each class and each level of confidence got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmadapter import calibration
from rmadapter.data.loader import Pixels, evaluation_batches
from rmadapter.data.task import Split
from rmadapter.errors import DataError, some
from rmadapter.predictor import Predictor


@dataclass(frozen=True)
class Scores:
    """How well a predictor does on a split. All scores are computed, when asked for, from what stands here."""

    labels: tuple[int, ...]
    """The true label of every item, in the split's order."""
    predicted: tuple[int, ...]
    """The predicted one: the class with the largest logit."""
    confidence: tuple[float, ...]
    """Its probability, 0 to 1."""
    classes: int
    """Number of classes, c."""
    temperature: float = 1.0
    """What the logits were divided by; 1: nothing."""

    @property
    def images(self) -> int:
        """Number of items."""
        return len(self.labels)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(images,) whether the predicted label is the true one."""
        return np.equal(self.labels, self.predicted)

    @property
    def accuracy(self) -> float:
        """Percent of images whose most probable class is the true one."""
        return 100 * float(self.right.mean())

    @cached_property
    def class_images(self) -> NDArray[np.int64]:
        """(c,) images of each class."""
        return np.bincount(self.labels, minlength=self.classes)

    @cached_property
    def class_right(self) -> NDArray[np.int64]:
        """(c,) those of them that are named right."""
        return np.bincount(np.asarray(self.labels)[self.right], minlength=self.classes)

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """(c,) accuracy within each class, percent; nan for a class without images."""
        found = np.full(self.classes, np.nan)
        np.divide(self.class_right, self.class_images, where=self.class_images > 0, out=found)
        return 100 * found

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the accuracies within the classes that have images, percent."""
        return float(np.nanmean(self.class_accuracy))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(c, c) images by true class (row) and predicted class (column)."""
        cells = np.asarray(self.labels) * self.classes + np.asarray(self.predicted)
        return np.bincount(cells, minlength=self.classes**2).reshape(self.classes, self.classes)

    @cached_property
    def bins(self) -> calibration.Bins:
        """Accuracy and confidence at each of 15 levels of confidence."""
        return calibration.bins(self.confidence, self.right)

    @property
    def ece(self) -> float:
        """Expected calibration error over these bins, percent (Guo et al., ICML 2017)."""
        return calibration.expected_calibration_error(self.bins)

    @property
    def mean_confidence(self) -> float:
        """Mean probability of the predicted class, percent; above the accuracy: too sure."""
        return 100 * float(np.mean(self.confidence))

    def summary(self) -> dict[str, float]:
        """The scores without the predictions behind them; accuracies, confidence and ECE in percent."""
        kept = ("accuracy", "mean_class_accuracy", "ece", "mean_confidence", "temperature", "images", "classes")
        return {name: getattr(self, name) for name in kept}

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.2f} %, mean class accuracy {self.mean_class_accuracy:.2f} %, "
            f"ECE {self.ece:.2f} % ({self.images} images, {self.classes} classes)"
        )


def evaluate(
    predictor: Predictor,
    split: Split,
    *,
    batch_size: int = 100,
    progress: Callable[[int], None] | None = None,
    pixels: Pixels | None = None,
) -> Scores:
    """Scores of a predictor on a split.

    Args:
        split: ``task.test``, ``task.val``, …; its class list must be the predictor's.
        batch_size: images in memory at a time.
        progress: called with the number of images done since its last call.
        pixels: where decoded images are kept for the next time.

    Raises:
        DataError: for an empty split, or one with other classes than the predictor's.
    """
    found = logits(predictor, split, batch_size=batch_size, progress=progress, pixels=pixels)
    return score(found, split.labels, predictor.temperature)


def logits(
    predictor: Predictor,
    split: Split,
    *,
    batch_size: int = 100,
    progress: Callable[[int], None] | None = None,
    pixels: Pixels | None = None,
) -> Tensor:
    """Logits (images, c) of a split in its order, not divided by a temperature, on the CPU; as for ``evaluate``."""
    if not len(split):
        raise DataError(f"{split.task} has no {split.part} images", remedy="give it some, or score another task")
    if split.classes != predictor.classes:
        raise DataError(
            f"the predictor's classes are not those of {split.task}/{split.part}",
            got=f"{some(predictor.classes)} against {some(split.classes)}",
            remedy="make the predictor with method.predictor(split.classes)",
        )
    found: list[Tensor] = []
    for batch in evaluation_batches(split, predictor.method.backbone.preprocess, batch_size, kept=pixels):
        found.append(predictor.logits(batch.pixels).cpu())
        if progress:
            progress(len(batch.labels))
    return torch.cat(found)


def score(logits: Tensor, labels: Sequence[int], temperature: float = 1.0) -> Scores:
    """Scores of logits (images, c), whose confidences are softmax(logits / temperature)."""
    predicted = logits.argmax(dim=-1)
    confidence = (logits / temperature).softmax(dim=-1).gather(1, predicted[:, None])[:, 0]
    return Scores(
        tuple(labels), tuple(predicted.tolist()), tuple(confidence.tolist()), logits.shape[1], float(temperature)
    )


def harmonic_mean(base: float, novel: float) -> float:
    """HM of base and novel accuracy, 2bn / (b + n); 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0
