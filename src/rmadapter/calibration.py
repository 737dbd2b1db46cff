"""Does a confidence of 80 % mean 80 % right? Bins, expected calibration error, and one temperature that mends it.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    ECE = Σ_m |B_m| / n · |acc(B_m) − conf(B_m)|          B_m: images whose confidence lies in ((m−1)/M, m/M]
    p   = softmax(logits / T),  T = argmin NLL(T) > 0      one scalar, so the most probable class stays what it was

Shape letters: ``n`` images, ``c`` classes, ``m`` bins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmadapter.errors import DataError

BINS = 15
"""Of equal width, as in the source."""
STEPS = 200
"""Of the search for a temperature, at most; it ends after about ten."""


class Bins(NamedTuple):
    """What happened at each level of confidence. Where a bin is empty, its accuracy and confidence are 0."""

    edges: NDArray[np.float64]
    """(m + 1,) from 0 to 1; a bin holds its upper edge."""
    images: NDArray[np.int64]
    """(m,) number of images."""
    accuracy: NDArray[np.float64]
    """(m,) share of them that is right, 0 to 1."""
    confidence: NDArray[np.float64]
    """(m,) their mean confidence, 0 to 1."""


def bins(confidence: ArrayLike, right: ArrayLike, count: int = BINS) -> Bins:
    """Images sorted into bins of equal width by confidence.

    Args:
        confidence: (n,) probability of the predicted class, 0 to 1.
        right: (n,) whether it is the true one.
        count: number of bins.

    Raises:
        DataError: for no images, or for another number of confidences than of results.
    """
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not sure.size or sure.shape != hit.shape:
        raise DataError("calibration needs images, with a confidence each", got=f"{sure.shape} against {hit.shape}")
    edges = np.linspace(0, 1, count + 1)
    place = np.searchsorted(edges[1:-1], sure, side="left")
    images = np.bincount(place, minlength=count)
    filled = np.maximum(images, 1)
    by_bin = [np.bincount(place, weights=values, minlength=count) / filled for values in (hit, sure)]
    return Bins(edges, images, *by_bin)


def expected_calibration_error(found: Bins) -> float:
    """ECE in percent: the mean over images of the gap between accuracy and confidence of their bin."""
    gaps = np.abs(found.accuracy - found.confidence)
    return 100 * float((found.images * gaps).sum() / found.images.sum())


class NoTemperatureError(DataError):
    """No temperature is best for these images."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T), in float64.

    In β = 1 / T the likelihood is convex, so its slope has one root. Newton's method finds it inside a bracket: the
    same number every time, with no learning rate and no start to choose.

    Args:
        logits: (n, c), raw: not divided by a temperature yet.
        labels: (n,) true classes, from 0.

    Raises:
        DataError: for no images, logits that are not finite, or labels that do not fit.
        NoTemperatureError: where all images are right (the lower the better), or they are no better than chance (the
            higher the better).
    """
    z, true = _checked(logits, labels)
    low, high = 0.0, np.inf
    beta = -1 / z.mean()  # of the right order, whatever the logits' scale
    for _ in range(STEPS):
        slope, curvature = _slope(z, true, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        new = beta - slope / curvature if curvature > 0 else np.inf
        if not low < new < high:
            new = 2 * beta if high == np.inf else (low + high) / 2
        done, beta = abs(new - beta) <= 1e-14 * beta, new
        if done:
            break
    return float(1 / beta)


def _slope(z: NDArray[np.float64], true: NDArray[np.float64], beta: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood in β: E[z] − z_true, and Var[z]."""
    p = np.exp(beta * z)
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * z).sum(axis=1)
    return float((mean - true).mean()), float(((p * z * z).sum(axis=1) - mean**2).mean())


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits (n, c) minus the largest of each image, and those of the true classes (n,)."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or not len(z) or len(z) != len(y):
        _refuse("a temperature is fitted on logits (images, classes) and as many labels", f"{z.shape} and {y.shape}")
    if not np.isfinite(z).all():
        _refuse("a temperature cannot be fitted on logits that are not finite", "nan or inf")
    if y.min() < 0 or y.max() >= z.shape[1]:
        _refuse("a label is not one of the classes", f"{y.min()} to {y.max()} of {z.shape[1]} classes")
    z = z - z.max(axis=1, keepdims=True)
    true = z[np.arange(len(z)), y]
    if (true == 0).all():
        _refuse("no temperature is best, since every image is named right", f"{len(z)} images", NoTemperatureError)
    if true.mean() <= z.mean():
        _refuse(
            "no temperature is best, since predictions are no better than chance",
            f"{len(z)} images",
            NoTemperatureError,
        )
    return z, true


def _refuse(problem: str, got: Any, kind: type[DataError] = DataError) -> None:
    raise kind(problem, got=got, remedy="use more validation images, or go on without a temperature")
