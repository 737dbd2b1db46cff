"""Differences to a baseline: tests worked out by counting all signs, and no number over a hole."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from rmadapter.compare import Difference, baseline_of, differences, holm, wilcoxon
from rmadapter.errors import SettingError
from rmadapter.measures import compared, measures
from test_tables import BOTH, Values, base_to_novel, grid


def counted(values: list[float]) -> float:
    """p by the definition: how many of all 2^n choices of signs lie as far out, ties with their mean rank."""
    known = [abs(value) for value in values if value]
    ranks = [sum(other < value for other in known) + (known.count(value) + 1) / 2 for value in known]
    total = sum(ranks)
    above = sum(rank for rank, value in zip(ranks, [v for v in values if v], strict=True) if value > 0)
    far = abs(above - total / 2)
    every = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return sum(abs(each - total / 2) >= far - 1e-9 for each in every) / len(every)


@pytest.mark.parametrize("seed", range(12))
def test_wilcoxon_is_exact_with_ties_and_zeros(seed: int) -> None:
    generator = random.Random(seed)
    values = [float(generator.randint(-3, 5)) for _ in range(generator.randint(2, 10))]
    if any(values):
        assert wilcoxon(values) == pytest.approx(counted(values))


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon([1.0, 2.0, 3.0]) == pytest.approx(0.25)  # 2 of 8 signs
    assert wilcoxon([-1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(4 / 32)
    assert wilcoxon([0.0, 0.0]) == 1.0


def test_differences_task_by_task() -> None:
    harmonic, base, novel = compared(base_to_novel(BOTH))
    (ours,) = differences(base, ["zero_shot", "ours"], "zero_shot")
    assert ours.by_task == pytest.approx((32, 20)) and ours.mean == pytest.approx(26)
    assert ours.counts == (2, 0, 0) and ours.p == ours.holm == pytest.approx(0.5)
    (ours,) = differences(novel, ["zero_shot", "ours"], "zero_shot")
    assert ours.by_task == pytest.approx((2, -2)) and ours.counts == (1, 0, 1) and ours.p == pytest.approx(1)
    (ours,) = differences(harmonic, ["zero_shot", "ours"], "zero_shot")
    hms = [(2 * 80 * 60 / 140 + 2 * 84 * 64 / 148) / 2 - 2 * 50 * 60 / 110]
    assert ours.by_task[0] == pytest.approx(hms[0])


def test_no_mean_and_no_test_over_a_hole() -> None:
    holed = base_to_novel({**BOTH, ("ours", "t2", 2): (math.nan, math.nan)})
    for measure in compared(holed):
        (ours,) = differences(measure, ["zero_shot", "ours"], "zero_shot")
        assert ours.by_task[0] is not None and ours.by_task[1] is None
        assert ours.mean is ours.p is ours.holm is None


def test_equal_tasks_are_ties_whatever_the_order_of_their_seeds() -> None:
    values: Values = {("zero_shot", f"t{i}", s): (0.1 * s, 1) for i in (1, 2) for s in (1, 2, 3)}
    values |= {("ours", f"t{i}", s): (0.1 * (4 - s), 1) for i in (1, 2) for s in (1, 2, 3)}
    _, base, _ = compared(base_to_novel(values))
    (ours,) = differences(base, ["zero_shot", "ours"], "zero_shot")
    assert ours.counts == (0, 2, 0) and ours.p == 1.0


def test_holm_by_hand() -> None:
    found = [Difference(str(p), (1.0,), p) for p in (0.01, 0.04, 0.03, None)]
    by_hand = [0.01 * 4, 0.03 * 3, 0.03 * 3, None]  # the one without p is to be tested, too
    assert [each.holm for each in holm(found)] == [p if p is None else pytest.approx(p) for p in by_hand]
    assert holm([Difference("x", (1.0,), 0.7), Difference("y", (1.0,), 0.8)])[1].holm == 1.0


def test_other_protocols_compare_targets_and_shots() -> None:
    values: Values = {("zero_shot", "s", 1): (90, 10, 20), ("ours", "s", 1): (95, 30, 40)}
    (targets,) = compared(grid("cross-dataset", ("source", "target a", "target b"), values))
    assert targets.tasks == ("a", "b")
    assert differences(targets, ["zero_shot", "ours"], "zero_shot")[0].by_task == pytest.approx((20, 20))
    shots = compared(grid("few-shot", ("all",), {("ours", "t", 1): (10, 20)}, shots=(1, 4)))
    assert [(measure.name, measure.over_tasks("ours").mean) for measure in shots] == [("1 shot", 10), ("4 shots", 20)]


def test_the_baseline() -> None:
    found, other = base_to_novel(BOTH), base_to_novel({("ours", "t", 1): (1, 2)})
    assert baseline_of([found, other], None) == {0: "zero_shot"}
    assert baseline_of([found, other], "ours") == {0: "ours", 1: "ours"}
    with pytest.raises(SettingError, match="did you mean 'ours'"):
        baseline_of([found], "our")
    run = found.plan.runs[0]
    named = [
        run.model_copy(update={"label": f"zero_shot {i}", "recipe": {**run.recipe, "method": "zero_shot"}})
        for i in (1, 2)
    ]
    one, both = (type(found)(found.plan.model_copy(update={"runs": tuple(r)}), {}) for r in (named[:1], named))
    assert baseline_of([one], None) == {0: "zero_shot 1"} and baseline_of([both], None) == {}  # which of the two?


def test_measures_average_as_tables_do() -> None:
    from rmadapter.tables import tables

    found = base_to_novel(BOTH)
    (_, zero), (_, ours) = tables(found)[0].rows
    for index, measure in enumerate(measures(found)):
        assert measure.over_tasks("zero_shot").mean == zero[index].mean
        assert (measure.over_tasks("ours").mean, measure.over_tasks("ours").error) == (
            ours[index].mean,
            ours[index].error,
        )
