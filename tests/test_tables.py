"""Tables from a store, against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import math

import pytest

from rmadapter.compare import differences
from rmadapter.measures import compared
from rmadapter.page.figures import styles
from rmadapter.page.sections import chapter
from rmadapter.page.sheets import blanks, calibration
from rmadapter.store import Plan, Planned, Result, Scored, Wanted
from rmadapter.tables import UNKNOWN, Grid, as_csv, markdown, tables

Values = dict[tuple[str, str, int], tuple[float, ...]]


def grid(protocol: str, roles: tuple[str, ...], values: Values, shots: tuple[int, ...] = (16,)) -> Grid:
    """(label, task, seed) to a number a role (base-to-novel, cross-dataset) or a number of shots (few-shot)."""
    runs, results = [], {}
    for (label, task, seed), numbers in values.items():
        for index, count in enumerate(shots):
            wanted = tuple(
                Wanted(
                    role=role.partition(" ")[0],
                    data=role.partition(" ")[2] or task,
                    classes=role if role in ("base", "novel") else "all",
                    split=role,
                )
                for role in roles
            )
            run = Planned(
                id=f"{label}-{task}-{seed}-{count}",
                label=label,
                recipe={"data": task, "seed": seed, "shots": count},
                backbone="b",
                split="s",
                wanted=wanted,
            )
            runs.append(run)
            own = numbers if len(shots) == 1 else numbers[index : index + 1]
            scores = {want.key: scored(want, v) for want, v in zip(wanted, own, strict=True) if not math.isnan(v)}
            if not all(math.isnan(v) for v in own):
                results[run.id] = Result(id=run.id, recipe={}, backbone="b", split="s", scores=scores)
    return Grid(Plan(protocol=protocol, runs=tuple(runs)), {run.id: results.get(run.id) for run in runs})


def scored(want: Wanted, accuracy: float) -> Scored:
    where = {"data": want.data, "split": want.split, "images": 1, "classes": 2, "seconds": 0}
    return Scored(accuracy=accuracy, mean_class_accuracy=accuracy, ece=2, **where)


def base_to_novel(values: Values) -> Grid:
    return grid("base-to-novel", ("base", "novel"), values)


BOTH: Values = {
    ("zero_shot", "t1", 1): (50, 60),
    ("zero_shot", "t2", 1): (70, 40),
    ("ours", "t1", 1): (80, 60),
    ("ours", "t1", 2): (84, 64),
    ("ours", "t2", 1): (90, 40),
    ("ours", "t2", 2): (90, 36),
}


def test_base_to_novel_means_and_both_harmonic_means() -> None:
    average, first, second = tables(base_to_novel(BOTH))
    assert average.columns == ("base", "novel", "HM of means", "mean of HMs")
    (_, zero), (_, ours) = average.rows
    assert [cell.mean for cell in zero] == pytest.approx(
        [60, 50, 2 * 60 * 50 / 110, (2 * 50 * 60 / 110 + 2 * 70 * 40 / 110) / 2]
    )
    assert all(cell.error is None for cell in zero)
    # Seeds: base 85 and 87, novel 50 and 50.
    assert ours[0].mean == pytest.approx(86) and ours[0].error == pytest.approx(1)
    assert ours[1].mean == pytest.approx(50) and ours[1].error == pytest.approx(0)
    assert ours[2].mean == pytest.approx((2 * 85 * 50 / 135 + 2 * 87 * 50 / 137) / 2)
    assert str(ours[0]) == "**86.0 ± 1.0**" and str(zero[0]) == "60.0"
    assert first.title == "t1" and first.rows[1][1][0].mean == pytest.approx(82)
    assert second.rows[1][1][1].mean == pytest.approx(38) and str(second.rows[0][1][1]) == "**40.0**"


def test_a_hole_is_shown_and_no_mean_goes_over_it() -> None:
    values = {**BOTH, ("ours", "t2", 2): (math.nan, math.nan)}
    found = base_to_novel(values)
    average, first, second = tables(found)
    assert [str(cell) for cell in average.rows[1][1]] == ["–"] * 4
    assert not any(cell.best for _, cells in average.rows for cell in cells)  # nothing to compare with
    assert first.rows[1][1][0].mean == pytest.approx(82) and str(second.rows[1][1][0]) == "–"
    text = markdown(found)
    assert "1 of 6 runs are missing" in text
    failed = Result(id="ours-t2-2-16", recipe={}, backbone="b", split="s", error="the loss is not finite\n more")
    text = markdown(Grid(found.plan, {**found.results, "ours-t2-2-16": failed}))
    assert "- ours, t2, seed 2, 16 shots (ours-t2-2-16) failed: the loss is not finite\n" in text
    whole = base_to_novel(BOTH)
    assert "missing" not in markdown(whole) and "Left out" not in markdown(whole)
    merged = Grid(whole.plan.model_copy(update={"superseded": 2}), whole.results)
    assert "Left out for newer runs of the same method, data, shots and seed: 2 runs of older plans." in markdown(
        merged
    )


def test_an_attempt_that_failed_hides_no_score() -> None:
    whole = base_to_novel(BOTH)
    late = {key: r and r.model_copy(update={"error": "the disk was full"}) for key, r in whole.results.items()}
    found = Grid(whole.plan, late)
    assert markdown(found) == markdown(whole) and as_csv(found) == as_csv(whole)


def test_a_method_that_was_not_asked_for_everywhere_has_no_mean() -> None:
    values = {key: value for key, value in BOTH.items() if key[:2] != ("zero_shot", "t2")}
    found = base_to_novel(values)
    average, first, second = tables(found)
    assert str(average.rows[0][1][0]) == str(second.rows[0][1][0]) == "–" and str(first.rows[0][1][0]) == "50.0"
    assert "what a method was not asked for" in markdown(found)


def test_what_a_class_bound_method_cannot_know_is_empty_and_no_hole() -> None:
    whole = base_to_novel({**BOTH, ("bound", "t1", 1): (99, math.nan), ("bound", "t2", 1): (99, math.nan)})
    runs = [r.model_copy(update={"wanted": r.wanted[:1]}) if r.label == "bound" else r for r in whole.plan.runs]
    found = Grid(whole.plan.model_copy(update={"runs": tuple(runs)}), whole.results)
    average, first, _ = tables(found)
    assert [str(cell) for cell in average.rows[2][1]] == ["**99.0**", "", "", ""]
    assert [row[1][1].best for row in average.rows] == [True, True, False]  # both have 50.0
    assert [row[1][2].best for row in first.rows] == [False, True, False]
    assert UNKNOWN in markdown(found) and "–" not in markdown(found) and blanks(found) == (UNKNOWN,)
    assert UNKNOWN not in markdown(whole) and blanks(whole) == ()
    rows = {
        measure.name: [d.label for d in differences(measure, found.labels, "zero_shot")] for measure in compared(found)
    }
    assert {name: "bound" in labels for name, labels in rows.items()} == {"HM": False, "base": True, "novel": False}
    sections = chapter(found, "bound", styles(found.labels, ["zero_shot"])).sections
    (differing,) = (section for section in sections if section.title == "Differences to bound")
    assert [sheet.title for sheet in differing.sheets] == ["base: points more than bound"]
    for sheet in calibration(found, {}):
        assert [entry.text == "" for entry in sheet.rows[2][1]] == [False, True]


def test_every_source_has_its_table() -> None:
    values: Values = {("ours", "s", 1): (90, 10, 20), ("ours", "z", 1): (80, 30, 40)}
    found = tables(grid("cross-dataset", ("source", "target a", "target b"), values))
    assert [(table.title, table.rows[0][1][3].mean) for table in found] == [
        ("trained on s", 15),
        ("trained on z", 35),
    ]


def test_cross_dataset_means_over_targets_leave_out_the_source() -> None:
    values: Values = {("ours", "s", 1): (90, 10, 20), ("ours", "s", 2): (94, 30, 40)}
    (table,) = tables(grid("cross-dataset", ("source", "target a", "target b"), values))
    assert table.columns == ("s (source)", "a", "b", "mean of targets")
    cells = table.rows[0][1]
    assert [cell.mean for cell in cells] == pytest.approx([92, 20, 30, 25])
    assert cells[3].error == pytest.approx(10)


def test_few_shot_columns_are_shots() -> None:
    values: Values = {("ours", "t1", 1): (10, 20), ("ours", "t2", 1): (30, 50)}
    average, first, _ = tables(grid("few-shot", ("all",), values, shots=(1, 4)))
    assert average.columns == ("1 shot", "4 shots")
    assert [cell.mean for cell in average.rows[0][1]] == pytest.approx([20, 35])
    assert [cell.mean for cell in first.rows[0][1]] == pytest.approx([10, 20])


def test_csv_has_a_row_a_score() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(base_to_novel(BOTH)))))
    assert len(rows) == 12
    assert rows[0] == {
        "protocol": "base-to-novel",
        "method": "zero_shot",
        "trained_on": "t1",
        "shots": "16",
        "seed": "1",
        "role": "base",
        "tested_on": "t1",
        "classes": "base",
        "accuracy": "50.0000",
        "ece": "2.0000",
        "id": "zero_shot-t1-1-16",
    }
