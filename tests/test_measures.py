"""Calibration and overviews from a store."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmadapter import calibration
from rmadapter.measures import ece, levels, measures, overconfidence, overview, overview_in_words, pooled
from rmadapter.store import Levels
from rmadapter.tables import Grid
from test_tables import BOTH, Values, base_to_novel, grid

FEW: Values = {("ours", "t1", 1): (10, 20), ("ours", "t2", 1): (30, 50), ("late", "t1", 1): (10, math.nan)}


def test_pooled_levels_are_those_of_all_images_together() -> None:
    generator = np.random.default_rng(1)
    parts, sure, right = [], [], []
    for number in (40, 90):
        confidence = generator.uniform(0.2, 1, number)
        hit = generator.uniform(0, 1, number) < confidence
        found = calibration.bins(confidence, hit)
        rights = (found.accuracy * found.images).round().astype(int)
        parts.append(Levels(images=found.images.tolist(), right=rights.tolist(), confidence=found.confidence.tolist()))
        sure += confidence.tolist()
        right += hit.tolist()
    whole, both = calibration.bins(sure, right), pooled(parts)
    assert both.images == tuple(whole.images.tolist())
    assert both.right == tuple((whole.accuracy * whole.images).round().astype(int).tolist())
    assert both.confidence == pytest.approx(whole.confidence.tolist())


def test_calibration_measures_and_results_that_are_too_old_for_them() -> None:
    found = base_to_novel(BOTH)
    assert measures(found, ece)[0].over_tasks("ours").mean == pytest.approx(2)
    old = measures(found, overconfidence)[0]
    assert old.over_tasks("ours").mean is None and levels(found, "ours", old) is None
    kept = {"mean_confidence": 90.0, "levels": Levels(images=(0, 4), right=(0, 3), confidence=(0, 0.9))}
    results = {
        name: r and r.model_copy(update={"scores": {k: s.model_copy(update=kept) for k, s in r.scores.items()}})
        for name, r in found.results.items()
    }
    new = Grid(found.plan, results)
    base = measures(new, overconfidence)[0]
    assert base.over_tasks("ours").mean == pytest.approx(90 - 86)
    whole = levels(new, "ours", base)
    assert whole is not None and whole.images == (0, 16) and whole.right == (0, 12)  # two tasks, two seeds
    results["ours-t1-1-16"] = None
    assert levels(Grid(found.plan, results), "ours", base) is None  # no curve of what is left


def test_an_overview_of_several_protocols() -> None:
    across: Values = {("ours", "s", 1): (90, 10, 20), ("ours", "s", 2): (94, 30, 40)}
    cross = grid("cross-dataset", ("source", "target a", "target b"), across)
    few = grid("few-shot", ("all",), FEW, shots=(1, 4))
    table = overview([base_to_novel(BOTH), cross, few])
    assert table.columns == ("base", "novel", "HM", "cross-dataset", "1 shot", "4 shots")
    rows = {label: list(map(str, cells)) for label, cells in table.rows}
    assert rows["zero_shot"] == ["60.0", "**50.0**", "54.5", "", "", ""]  # not asked for: empty
    assert rows["ours"][3:] == ["**25.0 ± 10.0**", "20.0", "35.0"] and rows["ours"][0] == "**86.0 ± 1.0**"
    assert rows["late"] == ["", "", "", "", "–", "–"]  # t2 was not asked for: no mean, and no best beside a hole
    assert "mean of the targets, 16 shots" in overview_in_words([cross])
