"""What a sweep's methods are compared by: one number a method, task and seed, whatever the protocol.

A table averages measures, a test compares them, a plot draws them. A number that is missing is None everywhere, and
what needs it is None too, so that nothing is averaged over a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rmadapter.store import Levels, Scored
from rmadapter.tables import Cell, Grid, Table, hm, mark_best, mean, mean_over_seeds, tables

Value = Callable[[Scored], float | None]
"""Which of a run's numbers is meant."""


@dataclass(frozen=True)
class Measure:
    """One number a method, task and seed; in percent."""

    name: str
    """base, novel, HM, source, targets, or a number of shots; with its source where there are several."""
    role: str
    """That of the scores; empty for HM."""
    tasks: tuple[str, ...]
    """What was tested on."""
    values: dict[tuple[str, str], tuple[float | None, ...]]
    """By label and task: a value for each of the label's seeds; none where the task was not asked for."""
    trained: str | None = None
    """What its runs trained on; None: the tasks themselves."""
    shots: object = None
    """Of its runs; None: all that there are."""
    unasked: frozenset[str] = frozenset()
    """Labels that the plan does not ask for it, since they cannot know the classes: what they lack is no hole."""

    def task(self, label: str, task: str) -> Cell:
        """Mean and standard error over seeds, on one task."""
        return mean_over_seeds(self.values[label, task], label not in self.unasked)

    def over_tasks(self, label: str) -> Cell:
        """Of the mean over tasks: mean and standard error over seeds."""
        by_seed = [mean(seed) for seed in zip(*self._rows(label), strict=True)]
        return mean_over_seeds(by_seed, label not in self.unasked)

    def _rows(self, label: str) -> list[tuple[float | None, ...]]:
        return [self.values[label, task] for task in self.tasks]


def accuracy(score: Scored) -> float:
    """Percent."""
    return score.accuracy


def ece(score: Scored) -> float:
    """Percent."""
    return score.ece


def overconfidence(score: Scored) -> float | None:
    """Mean confidence minus accuracy, percentage points; above 0: too sure. None: the result is too old to have it."""
    return None if score.mean_confidence is None else score.mean_confidence - score.accuracy


def measures(grid: Grid, value: Value = accuracy) -> list[Measure]:
    """All of a protocol, without those that are made of others."""
    tasks = tuple(str(task) for task in grid.distinct("data"))
    if grid.protocol.kind == "halves":
        return [_measure(grid, role, role, [(task, task, None) for task in tasks], value) for role in ("base", "novel")]
    if grid.protocol.kind == "curve":
        cells = [(task, task, None) for task in tasks]
        return [_measure(grid, shots_name(n), "all", cells, value, shots=n) for n in grid.distinct("shots")]
    found = []
    for source in tasks:
        wanted = [want for run in grid.runs(data=source) for want in run.wanted]
        targets = list(dict.fromkeys(want.data for want in wanted if want.role == "target"))
        where = f" of {source}" if len(tasks) > 1 else ""
        found.append(_measure(grid, f"source{where}", "source", [(source, source, source)], value))
        found.append(_measure(grid, f"targets{where}", "target", [(t, source, t) for t in targets], value))
    return found


def harmonic(base: Measure, novel: Measure) -> Measure:
    """HM of every task and seed."""
    values = {
        key: tuple(hm(b, n) for b, n in zip(base.values[key], novel.values[key], strict=True)) for key in base.values
    }
    return Measure("HM", "", base.tasks, values, unasked=base.unasked | novel.unasked)


def compared(grid: Grid) -> list[Measure]:
    """Measures that methods are compared by, the one that sums up first; the source's own accuracy is not one."""
    found = [measure for measure in measures(grid) if measure.role != "source"]
    return [harmonic(*found), *found] if grid.protocol.kind == "halves" else found


def shots_name(count: object) -> str:
    """As column names have it."""
    return f"{count} shot{'s' * (count != 1)}"


def levels(grid: Grid, label: str, measure: Measure) -> Levels | None:
    """All test items of a measure by confidence, over tasks and seeds; None where a score or its levels are missing."""
    found: list[Levels] = []
    for run in grid.runs(label=label, **({"data": measure.trained} if measure.trained else {})):
        if measure.shots not in (None, run.recipe["shots"]):
            continue
        for want in run.wanted:
            if want.role == measure.role and want.data in measure.tasks:
                score = grid.scored(run, want.role, want.data)
                if score is None or score.levels is None:
                    return None
                found.append(score.levels)
    return pooled(found) if found else None


def pooled(parts: Sequence[Levels]) -> Levels:
    """Several as one: counts added, confidences weighted by them."""
    images = [sum(part.images[i] for part in parts) for i in range(len(parts[0].images))]
    sure = [sum(part.images[i] * part.confidence[i] for part in parts) for i in range(len(images))]
    return Levels(
        images=tuple(images),
        right=tuple(sum(part.right[i] for part in parts) for i in range(len(images))),
        confidence=tuple(s / n if n else 0.0 for s, n in zip(sure, images, strict=True)),
    )


def overview(grids: Sequence[Grid]) -> Table:
    """One row a method: the means over tasks of every protocol; empty where a protocol was not asked for."""
    columns: list[str] = []
    rows: dict[str, dict[str, Cell]] = {label: {} for grid in grids for label in grid.labels}
    for grid in grids:
        for name, table, index in _headlines(grid):
            columns.append(name)
            for label, cells in table.rows:
                rows[label][name] = cells[index]
    made = tuple(
        (label, tuple(cells.get(name, Cell(None, asked=False)) for name in columns)) for label, cells in rows.items()
    )
    return mark_best(Table("mean over tasks", tuple(columns), made))


def overview_in_words(grids: Sequence[Grid]) -> str:
    """What the columns of an overview are."""
    said = []
    for grid in grids:
        name, shots = grid.protocol.name, ", ".join(map(str, grid.distinct("shots")))
        kinds = {
            "halves": f"{', '.join(_halves(name))} (harmonic mean of both): {name}, {shots} shots",
            "curve": f"number of shots: {name}, all classes",
            "source": f"{name}: mean of the targets, {shots} shots",
        }
        said.append(kinds[grid.protocol.kind])
    return f"Percent, mean over tasks and seeds ± standard error over seeds (none: one seed). {'; '.join(said)}."


def _halves(protocol: str) -> list[str]:
    """Columns of a task with two halves; what is beside base-to-novel says so."""
    return [name if protocol == "base-to-novel" else f"{protocol} {name}" for name in ("base", "novel", "HM")]


def _headlines(grid: Grid) -> list[tuple[str, Table, int]]:
    """Columns of a protocol's tables that an overview takes, and what it calls them."""
    found, protocol = tables(grid), grid.protocol
    if protocol.kind == "source":
        source = [f", {table.title}" if len(found) > 1 else "" for table in found]
        return [(protocol.name + said, table, -1) for said, table in zip(source, found, strict=True)]
    names = _halves(protocol.name) if protocol.kind == "halves" else found[0].columns
    return [(name, found[0], index) for index, name in enumerate(names)]


def _measure(
    grid: Grid, name: str, role: str, cells: Sequence[tuple[str, str, str | None]], value: Value, **where: object
) -> Measure:
    """Of (task shown, task trained on, task tested on or None for the role's only one)."""
    values: dict[tuple[str, str], tuple[float | None, ...]] = {}
    for label in grid.labels:
        for shown, trained, tested in cells:
            own = {"data": trained} if tested else {}  # a source has its own seeds
            seeds = dict.fromkeys(run.recipe["seed"] for run in grid.runs(label=label, **own))
            scores = [
                grid.scored(grid.run(label=label, data=trained, seed=seed, **where), role, tested) for seed in seeds
            ]
            values[label, shown] = tuple(None if score is None else value(score) for score in scores)
    source = cells[0][1] if cells and cells[0][2] else None
    unasked = frozenset(label for label in grid.labels if not grid.wants(label, role))
    return Measure(name, role, tuple(shown for shown, _, _ in cells), values, source, where.get("shots"), unasked)
