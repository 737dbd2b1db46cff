"""Bins, ECE and temperature against numbers worked by hand and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rmadapter.calibration import bins, expected_calibration_error, fit_temperature
from rmadapter.errors import DataError


def nll(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    scaled = logits / temperature
    return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))


def sample(seed: int, images: int = 400, classes: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and labels drawn from their softmax: the best temperature is near 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, np.array([random.choice(classes, p=row) for row in p])


def test_a_hand_worked_example() -> None:
    # Two bins. (0, 0.5]: 0.5 right and 0.3 wrong; accuracy 1/2, confidence 0.4. (0.5, 1]: 0.9 wrong, 0.7 and 1.0 right;
    # accuracy 2/3, confidence 2.6/3. ECE = 2/5 · 0.1 + 3/5 · 0.2 = 0.16
    found = bins([0.5, 0.3, 0.9, 0.7, 1.0], [True, False, False, True, True], count=2)
    assert found.edges.tolist() == [0, 0.5, 1] and found.images.tolist() == [2, 3]
    assert found.accuracy == pytest.approx([1 / 2, 2 / 3]) and found.confidence == pytest.approx([0.4, 2.6 / 3])
    assert expected_calibration_error(found) == pytest.approx(16)


def test_bins_hold_their_upper_edge_and_nothing_falls_out() -> None:
    found = bins([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0, 1.0000001], [True] * 5)  # float32 softmax may exceed 1
    assert found.images.tolist() == [2, 1] + [0] * 11 + [0, 2]
    assert found.accuracy[5] == 0 and found.confidence[5] == 0


def test_the_truth_about_itself_has_no_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.2, 1, 200_000)
    assert expected_calibration_error(bins(confidence, random.uniform(size=200_000) < confidence)) < 0.5
    assert expected_calibration_error(bins(confidence, np.zeros(200_000))) == pytest.approx(100 * confidence.mean())


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 20))
def test_bins_keep_every_image(rows: list[tuple[float, bool]], count: int) -> None:
    confidence, right = zip(*rows, strict=True)
    found = bins(confidence, right, count)
    assert found.images.sum() == len(rows)
    assert (found.images * found.accuracy).sum() == pytest.approx(sum(right))
    assert (found.images * found.confidence).sum() == pytest.approx(sum(confidence))
    gap = 100 * abs(sum(right) - sum(confidence)) / len(rows)
    assert gap - 1e-9 <= expected_calibration_error(found) <= 100  # one bin's error is the least of all binnings'


def test_a_temperature_worked_by_hand() -> None:
    # Two classes, logits (2, 0) always, right three times of four: p = 3/4 is best, so 2 / T = ln 3.
    assert fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(2 / np.log(3), rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(-4, 4))
def test_a_temperature_follows_the_scale_of_the_logits(seed: int, exponent: float) -> None:
    logits, labels = sample(seed)
    k, found = 10**exponent, fit_temperature(logits, labels)
    assert fit_temperature(k * logits, labels) == pytest.approx(k * found, rel=1e-9)
    assert fit_temperature(logits + np.arange(400)[:, None], labels) == pytest.approx(found, rel=1e-9)
    assert found == pytest.approx(1, abs=0.35)
    best = nll(logits, labels, found)
    assert all(nll(logits, labels, found * factor) > best for factor in (0.99, 1.01, 0.1, 10))


def test_where_newtons_method_alone_would_leap_below_zero() -> None:
    """One image is wrong by a thousand times the others' margins: a steep slope with next to no curvature."""
    logits = np.zeros((1000, 3))
    logits[:, 0] = 1e-3
    logits[0, 0] = 1.0
    labels = np.zeros(1000, dtype=np.int64)
    labels[0] = 1
    found = fit_temperature(logits, labels)
    best = nll(logits, labels, found)
    assert found > 0 and all(nll(logits, labels, found * factor) > best for factor in (0.5, 0.9, 1.1, 2))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), [], "fitted on logits"),
        ([[1.0, 2.0]], [0, 1], "fitted on logits"),
        ([1.0, 2.0], [0, 1], "fitted on logits"),
        ([[np.nan, 0.0]], [0], "not finite"),
        ([[1.0, 0.0]], [2], "not one of the classes"),
        ([[1.0, 0.0]], [-1], "not one of the classes"),
        ([[1.0, 0.0], [0.0, 3.0]], [0, 1], "every image is named right"),
        ([[1.0, 0.0], [0.0, 3.0]], [1, 0], "no better than chance"),
        ([[1.0, 1.0]], [0], "every image is named right"),
    ],
)
def test_what_has_no_temperature(logits: object, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_temperature(logits, labels)  # type: ignore[arg-type]


def test_no_images() -> None:
    with pytest.raises(DataError, match="needs images"):
        bins([], [])
    with pytest.raises(DataError, match="needs images"):
        bins([0.5], [True, False])
