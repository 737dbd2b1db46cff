"""Tables of a sweep from its store: methods by tasks, mean over seeds ± standard error. Holes are shown, not averaged.

The standard error is over seeds; where a row is a mean over tasks, of that mean, so that it does not hold what tasks
differ by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

from rmadapter.evaluation import harmonic_mean
from rmadapter.files import csv_text
from rmadapter.protocols import Protocol, protocol
from rmadapter.store import Plan, Planned, Result, Scored, Store, is_done

CSV = ("protocol", "method", "trained_on", "shots", "seed", "role", "tested_on", "classes", "accuracy", "ece", "id")

PARTS = ("tabulate", "extract", "align", "supervise")
"""Of carrying an adaptation over."""
NAMES = (
    "names known: the names of novel classes are used when the adaptation is extracted, as published; blind: they are "
    "not. All other rows meet novel names at the test alone. +: trained on the labels of the base images, too."
)
UNKNOWN = "Empty: what a method was not asked for, since it is bound to its classes and knows no others."


@dataclass(frozen=True)
class Cell:
    """A mean over seeds; percent."""

    mean: float | None
    """None: something that belongs to it is missing."""
    error: float | None = None
    """Standard error of the mean over seeds; None for one seed."""
    best: bool = False
    asked: bool = True
    """False: no plan wants it, so nothing is missing."""

    def __str__(self) -> str:
        if not self.asked:
            return ""
        if self.mean is None:
            return "–"
        text = f"{self.mean:.1f}" if self.error is None else f"{self.mean:.1f} ± {self.error:.1f}"
        return f"**{text}**" if self.best else text


@dataclass(frozen=True)
class Table:
    """A title, column names, and rows that begin with their names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    def __str__(self) -> str:
        """As Markdown."""
        lines = [f"| {' | '.join(('', *self.columns))} |", "| --- " * (len(self.columns) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(map(str, cells))} |" for name, cells in self.rows]
        return f"## {self.title}\n\n" + "\n".join(lines)


@dataclass(frozen=True)
class Grid:
    """What a plan wants and what its store has."""

    plan: Plan
    results: dict[str, Result | None]

    @classmethod
    def read(cls, plan: Plan, store: Store) -> Grid:
        """The grid as it stands now."""
        return cls(plan, {run.id: store.read(run.id) for run in plan.runs})

    @property
    def protocol(self) -> Protocol:
        """Of the plan."""
        return protocol(self.plan.protocol)

    @property
    def labels(self) -> list[str]:
        """Methods, in the order of the plan."""
        return list(dict.fromkeys(run.label for run in self.plan.runs))

    @property
    def roles(self) -> list[str]:
        """What scores stand for, in the order of the plan."""
        return list(dict.fromkeys(want.role for run in self.plan.runs for want in run.wanted))

    @property
    def open(self) -> list[Planned]:
        """Runs that are not finished."""
        return [run for run in self.plan.runs if not is_done(self.results[run.id], run)]

    @property
    def failed(self) -> list[tuple[Planned, str]]:
        """Runs that are not finished since they failed, with the error in one line."""
        found = []
        for run in self.open:
            result = self.results[run.id]
            if result is not None and result.error is not None:
                found.append((run, result.reason))
        return found

    def runs(self, **wanted: object) -> list[Planned]:
        """Runs by label, data, shots or seed."""
        key = tuple(wanted[name] for name in ("label", "data") if name in wanted)
        near = self._near.get(key, []) if "label" in wanted else self.plan.runs
        return [run for run in near if all(_of(run, key) == value for key, value in wanted.items())]

    def run(self, **wanted: object) -> Planned | None:
        """The run by label, data, shots and seed; None where the plan has none."""
        return next(iter(self.runs(**wanted)), None)

    @cached_property
    def _near(self) -> dict[tuple[object, ...], list[Planned]]:
        """Runs by label, and by label and data, since a large grid is looked through once a cell."""
        found: dict[tuple[object, ...], list[Planned]] = {}
        for run in self.plan.runs:
            for key in ((run.label,), (run.label, run.recipe["data"])):
                found.setdefault(key, []).append(run)
        return found

    def wants(self, label: str, role: str, data: str | None = None) -> bool:
        """Whether the plan wants a method's score in a role; of classes that a method cannot know it does not."""
        wanted = (want for run in self.runs(label=label) for want in run.wanted)
        return any(want.role == role and data in (None, want.data) for want in wanted)

    def distinct(self, key: str) -> list[object]:
        """The values of data, shots or seed in the plan's order."""
        return list(dict.fromkeys(_of(run, key) for run in self.plan.runs))

    def score(self, run: Planned | None, role: str, data: str | None = None) -> float | None:
        """A run's accuracy in a role; None where it is missing."""
        found = self.scored(run, role, data)
        return found.accuracy if found else None

    def scored(self, run: Planned | None, role: str, data: str | None = None) -> Scored | None:
        """All that a run scored in a role; None where it is missing."""
        if run is None:
            return None
        result = self.results[run.id]
        for want in run.wanted:
            if want.role == role and data in (None, want.data):
                return result.score(want) if result else None
        return None


def _of(run: Planned, key: str) -> object:
    return run.label if key == "label" else run.recipe[key]


def mean_over_seeds(by_seed: Sequence[float | None], asked: bool = True) -> Cell:
    """Mean ± standard error; without a mean where one is missing, or was not asked for."""
    values = [value for value in by_seed if value is not None]
    if not values or len(values) < len(by_seed):
        return Cell(None, asked=asked)
    return Cell(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where one is missing, so that no average hides a hole."""
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if known and len(known) == len(found) else None


def hm(base: float | None, novel: float | None) -> float | None:
    """Harmonic mean; None where one is missing."""
    return None if base is None or novel is None else harmonic_mean(base, novel)


def tables(grid: Grid) -> list[Table]:
    """The protocol's tables, the means first."""
    made = {
        "halves": base_to_novel,
        "source": from_source,
        "curve": few_shot,
    }[grid.protocol.kind](grid)
    return [mark_best(table) for table in made]


def base_to_novel(grid: Grid) -> list[Table]:
    """Base, novel and HM: the mean over tasks, then each task."""
    tasks, seeds = grid.distinct("data"), grid.distinct("seed")
    of: dict[tuple[object, str, object], tuple[float | None, float | None]] = {}
    for label in grid.labels:
        for task in tasks:
            for seed in _seeds(grid, label, seeds):
                run = grid.run(label=label, data=task, seed=seed)
                of[task, label, seed] = (grid.score(run, "base"), grid.score(run, "novel"))
    average = []
    for label in grid.labels:
        own = _seeds(grid, label, seeds)
        pairs = [[of[task, label, seed] for task in tasks] for seed in own]
        bases = [mean(base for base, _ in pair) for pair in pairs]
        novels = [mean(novel for _, novel in pair) for pair in pairs]
        of_means = [hm(base, novel) for base, novel in zip(bases, novels, strict=True)]
        of_hms = [mean(hm(*values) for values in pair) for pair in pairs]
        novel = grid.wants(label, "novel")  # and so what is made of it
        rest = (mean_over_seeds(values, novel) for values in (novels, of_means, of_hms))
        average.append((label, (mean_over_seeds(bases), *rest)))
    columns = ("base", "novel", "HM of means", "mean of HMs")
    made = [Table(f"mean over {len(tasks)} tasks", columns, tuple(average))]
    for task in tasks:
        rows = []
        for label in grid.labels:
            values = [of[task, label, seed] for seed in _seeds(grid, label, seeds)]
            novel, lists = grid.wants(label, "novel"), ([n for _, n in values], [hm(b, n) for b, n in values])
            rows.append((label, (mean_over_seeds([b for b, _ in values]), *(mean_over_seeds(x, novel) for x in lists))))
        made.append(Table(str(task), ("base", "novel", "HM"), tuple(rows)))
    return made


def from_source(grid: Grid) -> list[Table]:
    """For each source: its own accuracy, every target's, and the mean over targets."""
    return [_from_one_source(grid, str(source)) for source in grid.distinct("data")]


def _from_one_source(grid: Grid, source: str) -> Table:
    wanted = [want for run in grid.runs(data=source) for want in run.wanted]
    targets = list(dict.fromkeys(want.data for want in wanted if want.role == "target"))
    rows = []
    for label in dict.fromkeys(run.label for run in grid.runs(data=source)):
        runs = grid.runs(label=label, data=source)
        scores = [[grid.score(run, "target", target) for target in targets] for run in runs]
        cells = [mean_over_seeds([grid.score(run, "source") for run in runs])]
        asked = [grid.wants(label, "target", target) for target in targets]
        cells += [mean_over_seeds([row[index] for row in scores], asked[index]) for index in range(len(targets))]
        rows.append((label, (*cells, mean_over_seeds([mean(row) for row in scores], any(asked)))))
    columns = (f"{source} (source)", *targets, "mean of targets")
    return Table(f"trained on {source}", columns, tuple(rows))


def few_shot(grid: Grid) -> list[Table]:
    """Accuracy over shots: the mean over tasks, then each task."""
    tasks, seeds, shots = grid.distinct("data"), grid.distinct("seed"), grid.distinct("shots")
    columns = tuple(f"{count} shot{'s' * (count != 1)}" for count in shots)

    def row(label: str, chosen: Sequence[object]) -> tuple[str, tuple[Cell, ...]]:
        cells = []
        for count in shots:
            by_seed = [
                mean(grid.score(grid.run(label=label, data=t, seed=s, shots=count), "all") for t in chosen)
                for s in _seeds(grid, label, seeds)
            ]
            cells.append(mean_over_seeds(by_seed))
        return label, tuple(cells)

    whole = [Table(f"mean over {len(tasks)} tasks", columns, tuple(row(label, tasks) for label in grid.labels))]
    return whole + [Table(str(t), columns, tuple(row(label, [t]) for label in grid.labels)) for t in tasks]


def _seeds(grid: Grid, label: str, seeds: Sequence[object]) -> list[object]:
    """The seeds of a method's own runs."""
    return [seed for seed in seeds if grid.runs(label=label, seed=seed)]


def mark_best(table: Table) -> Table:
    """The best of every column marked; a column with holes has none."""
    if len(table.rows) < 2:
        return table
    best = []
    for column in range(len(table.columns)):
        means = [cells[column].mean for _, cells in table.rows if cells[column].asked]
        known = [value for value in means if value is not None]
        best.append(max(known) if len(known) == len(means) else None)
    rows = tuple(
        (
            name,
            tuple(replace(c, best=c.mean is not None and c.mean == top) for c, top in zip(cells, best, strict=True)),
        )
        for name, cells in table.rows
    )
    return Table(table.title, table.columns, rows)


def markdown(grid: Grid) -> str:
    """All tables of a protocol as Markdown, and below them what is missing."""
    seeds = [str(seed) for seed in grid.distinct("seed")]
    mean = f"mean over seeds {', '.join(seeds)} ± standard error" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    parts = [f"# {grid.plan.protocol}", f"Percent; {mean}. In bold: the best."]
    return "\n\n".join([*parts, *map(str, tables(grid)), *_ways(grid), *holes(grid)]) + "\n"


def added(grid: Grid) -> Table | None:
    """What a way of using a teacher costs beside the target's own, as a mean over its runs; None: nothing is known."""
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for label in grid.labels:
        results = [grid.results[run.id] for run in grid.runs(label=label)]
        spent = [result.training or {} if result else {} for result in results]
        flops = [each["flops_added"] / 1e6 if "flops_added" in each else None for each in spent]
        if any(each is not None for each in flops):
            seconds = [mean(each.get("parts", {}).get(name) for each in spent) for name in PARTS]
            rows.append((label, (Cell(mean(flops)), *map(Cell, seconds))))
    columns = ("million operations added an image", *(f"{name}, s" for name in PARTS))
    return Table("cost beside the target's own", columns, tuple(rows)) if rows else None


def _ways(grid: Grid) -> list[str]:
    """Of the protocol transfer: what its rows' names mean, and what they cost."""
    if not grid.protocol.two_backbones:
        return []
    table = added(grid)
    return [NAMES] if table is None else [NAMES, str(table)]


def holes(grid: Grid) -> list[str]:
    """What is not there and why, in words; means that need it are shown as –."""
    said = []
    if grid.open:
        said.append(f"{len(grid.open)} of {len(grid.plan.runs)} runs are missing; what needs one is shown as –.")
    cells = [cell for table in tables(grid) for _, row in table.rows for cell in row]
    if not grid.open and "–" in map(str, cells):
        said.append("–: what a method was not asked for on every task, so that it has no mean over them.")
    if not all(cell.asked for cell in cells):
        said.append(UNKNOWN)
    if grid.plan.superseded:
        many = f"{grid.plan.superseded} run{'s' * (grid.plan.superseded != 1)}"
        said.append(f"Left out for newer runs of the same method, data, shots and seed: {many} of older plans.")
    for run, why in grid.failed:
        where = f"{run.label}, {run.recipe['data']}, seed {run.recipe['seed']}, {run.recipe['shots']} shots"
        said.append(f"- {where} ({run.id}) failed: {why}")
    return said


def as_csv(grid: Grid) -> str:
    """A row a score: protocol, label, what was trained on and how, what was tested on, accuracy, ECE, id."""
    rows: list[list[object]] = [[*CSV]]
    for run in grid.plan.runs:
        result = grid.results[run.id]
        for want in run.wanted:
            score = result.score(want) if result else None
            found = ["", ""] if score is None else [f"{score.accuracy:.4f}", f"{score.ece:.4f}"]
            head = [grid.plan.protocol, run.label, run.recipe["data"], run.recipe["shots"], run.recipe["seed"]]
            rows.append([*head, want.role, want.data, want.classes, *found, run.id])
    return csv_text(rows)
