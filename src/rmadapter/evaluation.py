"""A predictor on a split: scores in percent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rmadapter.data.loader import evaluation_batches
from rmadapter.data.task import Split
from rmadapter.errors import DataError
from rmadapter.predictor import Predictor


@dataclass(frozen=True)
class Scores:
    """How well a predictor does on a split."""

    accuracy: float
    """Percent of images whose most probable class is the true one."""
    mean_class_accuracy: float
    """Mean over classes of the accuracy within a class, percent."""
    images: int
    classes: int
    predicted: tuple[int, ...]
    """The predicted label of every item, in the split's order."""
    confidence: tuple[float, ...]
    """Its probability."""

    def summary(self) -> dict[str, float]:
        """The scores without the predictions behind them."""
        kept = ("accuracy", "mean_class_accuracy", "images", "classes")
        return {name: getattr(self, name) for name in kept}

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.2f} %, mean class accuracy {self.mean_class_accuracy:.2f} % "
            f"({self.images} images, {self.classes} classes)"
        )


def evaluate(
    predictor: Predictor, split: Split, *, batch_size: int = 100, progress: Callable[[int], None] | None = None
) -> Scores:
    """Scores of a predictor on a split.

    Args:
        split: ``task.test``, ``task.val``, …; its class list must be the predictor's.
        batch_size: images in memory at a time.
        progress: called with the number of images done since its last call.

    Raises:
        DataError: for an empty split, or one with other classes than the predictor's.
    """
    if not len(split):
        raise DataError(f"the {split.part} split of {split.task} is empty")
    if split.classes != predictor.classes:
        raise DataError(
            f"the predictor's classes are not those of {split.task}/{split.part}",
            got=f"{_list(predictor.classes)} against {_list(split.classes)}",
            remedy="make the predictor with method.predictor(split.classes)",
        )
    predicted: list[int] = []
    confidence: list[float] = []
    for batch in evaluation_batches(split, predictor.method.backbone.preprocess, batch_size):
        best = predictor.logits(batch.pixels).softmax(dim=-1).max(dim=-1)
        predicted += best.indices.tolist()
        confidence += best.values.tolist()
        if progress:
            progress(len(batch.labels))
    labels = torch.tensor(split.labels)
    right = (torch.tensor(predicted) == labels).double()
    counts = torch.bincount(labels, minlength=len(split.classes))
    by_class = torch.bincount(labels, weights=right, minlength=len(split.classes))[counts > 0] / counts[counts > 0]
    return Scores(
        accuracy=100 * right.mean().item(),
        mean_class_accuracy=100 * by_class.mean().item(),
        images=len(labels),
        classes=len(split.classes),
        predicted=tuple(predicted),
        confidence=tuple(confidence),
    )


def harmonic_mean(base: float, novel: float) -> float:
    """HM of base and novel accuracy, 2bn / (b + n); 0 where both are 0."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def _list(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}, …)"
