"""Methods against a baseline, task by task: differences, and Wilcoxon's signed-rank test over tasks.

Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006. A task gives the test
one number, its mean over seeds, since seeds of one task say little about other tasks. Several methods, one baseline:
Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rmadapter.errors import SettingError, nearest
from rmadapter.measures import Measure
from rmadapter.store import Planned
from rmadapter.tables import Grid, mean

DIGITS = 9
"""To which differences are rounded, so that equal ones are ties whatever order their seeds were added in."""


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline, in percentage points."""

    label: str
    by_task: tuple[float | None, ...]
    """Of the means over seeds; None where a run is missing."""
    p: float | None = None
    """Two-sided, of Wilcoxon's test; None where a task is missing, since fewer tasks would be another test."""
    holm: float | None = None
    """The same, adjusted for as many tests as there are methods (Holm)."""

    @property
    def mean(self) -> float | None:
        """Over tasks; None where one is missing."""
        return mean(self.by_task)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Known tasks that are better, equal, worse."""
        known = [value for value in self.by_task if value is not None]
        better, worse = sum(value > 0 for value in known), sum(value < 0 for value in known)
        return better, len(known) - better - worse, worse


def differences(measure: Measure, labels: Sequence[str], baseline: str) -> list[Difference]:
    """Every other method that is asked for a measure, minus the baseline on each of its tasks."""
    found = []
    for label in labels:
        if label == baseline or label in measure.unasked:
            continue
        pairs = [(measure.task(label, task).mean, measure.task(baseline, task).mean) for task in measure.tasks]
        by_task = tuple(None if a is None or b is None else round(a - b, DIGITS) for a, b in pairs)
        known = [value for value in by_task if value is not None]
        found.append(Difference(label, by_task, wilcoxon(known) if known and len(known) == len(by_task) else None))
    return holm(found)


def wilcoxon(values: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences lie around 0; those that are 0 are left out.

    Exact, but for more than 13 tasks of which some are equal or 0 (then a normal approximation). 1 where all are 0.
    """
    from scipy import stats

    return float(stats.wilcoxon(values, zero_method="wilcox").pvalue) if any(values) else 1.0


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The same with adjusted p: the i-th smallest of m times m − i + 1, at most 1, none below a smaller one's.

    Methods without p, since runs are missing, count among the m: they were to be tested, too.
    """
    ranked = sorted((each for each in found if each.p is not None), key=lambda each: each.p or 0.0)
    adjusted: dict[str, float] = {}
    least = 0.0
    for index, each in enumerate(ranked):
        least = max(least, min(1.0, (each.p or 0.0) * (len(found) - index)))
        adjusted[each.label] = least
    return [replace(each, holm=adjusted.get(each.label)) for each in found]


def _zero_shot(run: Planned) -> bool:
    """Not what is mixed with something that was trained (``ways``)."""
    return run.recipe.get("method") == "zero_shot" and "transfer" not in run.recipe


def baseline_of(grids: Sequence[Grid], wanted: str | None) -> dict[int, str]:
    """The baseline's label in each grid that has it, by the grid's place.

    Args:
        wanted: a label; None: zero-shot, where a grid has it once.

    Raises:
        SettingError: for a label that no grid has.
    """
    labels = list(dict.fromkeys(label for grid in grids for label in grid.labels))
    if wanted is not None and wanted not in labels:
        raise SettingError(
            f"there is no method {wanted!r} to compare with", allowed=", ".join(labels), remedy=nearest(wanted, labels)
        )
    found = {}
    for index, grid in enumerate(grids):
        zero = [label for label in grid.labels if label == "zero_shot"] or list(
            dict.fromkeys(run.label for run in grid.plan.runs if _zero_shot(run))
        )
        choice = [label for label in grid.labels if label == wanted] if wanted is not None else zero
        if len(choice) == 1:
            found[index] = choice[0]
    return found
