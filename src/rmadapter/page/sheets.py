"""A report's tables, with what is missing from each said below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from statistics import fmean

from rmadapter.compare import Difference
from rmadapter.measures import Measure, ece, measures, overconfidence, shots_name
from rmadapter.store import Planned, is_done
from rmadapter.tables import UNKNOWN, Cell, Grid, Table, added

NAMED = 3
"""Runs that a note names; of more it says how many of which method, and the list of what is not finished has all."""
HOLE = "–"
SPARED = (
    "Runs that drew the same views as one before them in their process took the frozen blocks' work from it: alone "
    "they would have taken longer."
)


@dataclass(frozen=True)
class Entry:
    """A cell of a table."""

    text: str
    error: str = ""
    """Standard error, where there is one."""
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table as a page shows it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = ()
    """What a reader must know before believing it: above all, what is missing."""
    corner: str = "method"
    """What the first column holds."""


def short(names: Iterable[str]) -> dict[str, str]:
    """Names of tasks without the folders that all of them lie in: pictograms/food as food."""
    parts = {name: PurePath(name).parts or (name,) for name in names}
    shared = 0
    while all(len(each) > shared + 1 for each in parts.values()) and len({e[shared] for e in parts.values()}) == 1:
        shared += 1
    return {name: "/".join(each[shared:]) for name, each in parts.items()}


def names_of(grid: Grid) -> dict[str, str]:
    """Short names of all that a grid trains and tests on."""
    return short([*map(str, grid.distinct("data")), *(want.data for run in grid.plan.runs for want in run.wanted)])


def scores(grid: Grid, table: Table, data: str | None, names: Mapping[str, str]) -> Sheet:
    """A table of accuracies. ``data``: the one task whose runs it is made of; None: all runs."""
    columns = tuple(named(column, names) for column in table.columns)
    return Sheet(named(table.title, names), columns, rows_of(table), holes(grid, names, data))


def added_cost(grid: Grid) -> tuple[Sheet, ...]:
    """What ways of using a teacher on another backbone cost; of other protocols: none."""
    table = added(grid)
    if table is None:
        return ()
    return (Sheet(table.title.capitalize(), table.columns, rows_of(table)),)


def rows_of(table: Table) -> tuple[tuple[str, tuple[Entry, ...]], ...]:
    """A table's rows as they are printed."""
    return tuple((label, tuple(map(entry, cells))) for label, cells in table.rows)


def entry(cell: Cell) -> Entry:
    """A mean as it is printed."""
    if cell.mean is None:
        return Entry(HOLE if cell.asked else "")
    return Entry(f"{cell.mean:.1f}", "" if cell.error is None else f"{cell.error:.1f}", cell.best)


def holes(grid: Grid, names: Mapping[str, str], data: str | None = None, shots: object = None) -> tuple[str, ...]:
    """What a table lacks and why: runs that failed or were not computed, and tasks that were not asked for.

    Args:
        data, shots: what the table is made of; None: runs on all.
    """
    own = [r for r in grid.plan.runs if data in (None, r.recipe["data"]) and shots in (None, r.recipe["shots"])]
    runs = [run for run in grid.open if run in own]
    said = []
    if runs:
        failed = {run.id: why for run, why in grid.failed}
        which = [f"{where(run, names)} ({_state(grid, run, failed)})" for run in runs]
        listed = "; ".join(which if len(runs) <= NAMED else _counted(runs, failed))
        are, them = ("is", "it") if len(runs) == 1 else ("are", "one of them")
        said.append(
            f"{len(runs)} of {len(own)} runs {are} missing: {listed}. What needs {them} is\N{NO-BREAK SPACE}{HOLE}."
        )
    skipped = _not_asked(grid, names) if data is None else []
    if skipped:
        said.append(f"Not asked for, so without a mean: {'; '.join(skipped)}.")
    return tuple(said)


def blanks(grid: Grid) -> tuple[str, ...]:
    """What an empty cell means, where a table has one."""
    return (UNKNOWN,) if any(not grid.wants(label, role) for label in grid.labels for role in grid.roles) else ()


def where(run: Planned, names: Mapping[str, str]) -> str:
    """Which run is meant, for people."""
    task = str(run.recipe["data"])
    return f"{run.label}, {names.get(task, task)}, {shots_name(run.recipe['shots'])}, seed {run.recipe['seed']}"


def _state(grid: Grid, run: Planned, failed: Mapping[str, str]) -> str:
    result = grid.results[run.id]
    have = sum(result.score(want) is not None for want in run.wanted) if result else 0
    partly = f", {have} of {len(run.wanted)} scores are there" if have else ""
    return (f"failed: {failed[run.id]}" if run.id in failed else "not computed") + partly


def _counted(runs: Sequence[Planned], failed: Mapping[str, str]) -> list[str]:
    """How many runs of each method failed, and how many were not computed."""
    said = []
    for label in dict.fromkeys(run.label for run in runs):
        own = [run.id in failed for run in runs if run.label == label]
        parts = [f"{n} {what}" for n, what in ((sum(own), "failed"), (len(own) - sum(own), "not computed")) if n]
        said.append(f"{label}: {', '.join(parts)}")
    return said


def _not_asked(grid: Grid, names: Mapping[str, str]) -> list[str]:
    """Methods that the plan has on some data, shots and seeds only."""
    found = []
    from_source = grid.protocol.kind == "source"
    for label in grid.labels:
        runs = grid.runs(label=label)
        seeds = dict.fromkeys(run.recipe["seed"] for run in runs)
        have = {(run.recipe["data"], run.recipe["shots"], run.recipe["seed"]) for run in runs}
        shots = grid.distinct("shots") if grid.protocol.kind == "curve" else dict.fromkeys(h[1] for h in have)
        wanted = [(d, n, s) for d in grid.distinct("data") for n in shots for s in seeds]
        lacking = [] if from_source else [each for each in wanted if each not in have]
        if lacking:
            which = dict.fromkeys(f"{names.get(str(d), d)}, {shots_name(n)}, seed {s}" for d, n, s in lacking)
            listed = [*list(which)[:NAMED], *([f"{len(which) - NAMED} more"] if len(which) > NAMED else [])]
            found.append(f"{label} on {' and '.join(listed)}")
    return found


def differences(
    grid: Grid, measure: Measure, rows: Sequence[Difference], baseline: str, names: Mapping[str, str]
) -> Sheet:
    """Each method minus the baseline: mean, tasks that are better, equal and worse, p, and every task."""
    columns = ("mean", "+ / = / −", "p", "p, Holm", *(names.get(task, task) for task in measure.tasks))
    notes, made = holes(grid, names, measure.trained, measure.shots), []
    for row in rows:
        counts = Entry(HOLE if None in row.by_task else " / ".join(map(str, row.counts)))
        by_task = [_signed(value) for value in row.by_task]
        made.append((row.label, (_signed(row.mean), counts, _p(row.p), _p(row.holm), *by_task)))
    return Sheet(f"{measure.name}: points more than {baseline}", columns, tuple(made), notes)


def _signed(value: float | None) -> Entry:
    return Entry(HOLE if value is None else f"{value:+.1f}".replace("-", "−"))


def _p(value: float | None) -> Entry:
    if value is None:
        return Entry(HOLE)
    return Entry("<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}")


def calibration(grid: Grid, names: Mapping[str, str]) -> list[Sheet]:
    """Expected calibration error, and mean confidence minus accuracy."""
    errors, sure = measures(grid, ece), measures(grid, overconfidence)
    columns = tuple(named(measure.name, names) for measure in errors)
    notes = holes(grid, names)
    first = [(label, tuple(entry(measure.over_tasks(label)) for measure in errors)) for label in grid.labels]
    old = any(s.mean_confidence is None for r in grid.results.values() if r for s in r.scores.values())
    aged = ("Some results are older than the confidence that is kept beside them: what needs it is shown as –.",)
    second = []
    for label in grid.labels:
        cells = [measure.over_tasks(label) for measure in sure]
        made = [replace(_signed(cell.mean), error=entry(cell).error) if cell.asked else Entry("") for cell in cells]
        second.append((label, tuple(made)))
    return [
        Sheet("ECE, percent (0 is best)", columns, _least(first), notes),
        Sheet("confidence minus accuracy, points", columns, tuple(second), (*notes, *(aged if old else ()))),
    ]


def _least(rows: Sequence[tuple[str, tuple[Entry, ...]]]) -> tuple[tuple[str, tuple[Entry, ...]], ...]:
    """The smallest of every column marked; a column with holes has none."""
    best = []
    for column in zip(*(cells for _, cells in rows), strict=True):
        texts = [cell.text for cell in column if cell.text]
        best.append(min(texts, key=float) if len(texts) > 1 and HOLE not in texts else None)
    return tuple(
        (label, tuple(replace(c, best=c.text == b) for c, b in zip(cells, best, strict=True))) for label, cells in rows
    )


def cost(grid: Grid, names: Mapping[str, str]) -> Sheet:
    """What each method's finished runs took."""
    rows = []
    for label in grid.labels:
        runs = grid.runs(label=label)
        done = [r for run in runs if (r := grid.results[run.id]) is not None and is_done(r, run)]
        spent = [[result.seconds.get(key) for result in done] for key in ("setup", "train", "evaluate")]
        total = [sum(result.seconds.values()) for result in done if result.seconds]
        memory = [result.peak_memory for result in done if result.peak_memory is not None]
        cells = [
            f"{len(done)} of {len(runs)}",
            _range([result.trained_parameters for result in done]),
            _range([(result.training or {}).get("steps") for result in done]),
            *(_seconds(values) for values in spent),
            f"{sum(total):,.0f}" if len(total) == len(done) and done else HOLE,
            f"{max(memory):,.0f}" if memory else HOLE,
        ]
        rows.append((label, tuple(map(Entry, cells))))
    columns = ("runs", "trained parameters", "steps", "set up, s", "train, s", "evaluate, s", "all runs, s", "peak MiB")
    open_runs = len(grid.open)
    note = f"Of finished runs only: {open_runs} of {len(grid.plan.runs)} are missing here."
    recalled = [run for run in grid.results.values() if run and run.training and run.training.get("recalled")]
    notes = (note, *holes(grid, names)[1:]) if open_runs else ()
    return Sheet("", columns, tuple(rows), (*notes, *((SPARED,) if recalled else ())))


def _seconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):,.1f}" if known and len(known) == len(values) else HOLE


def _range(values: Sequence[int | None]) -> str:
    """The number, or the smallest and largest where runs differ."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return HOLE
    ends = dict.fromkeys(f"{value:,}" for value in (min(known), max(known)))
    return " to ".join(ends)


def runs(grid: Grid, names: Mapping[str, str]) -> Sheet:
    """Every run with its state."""
    failed = {run.id: why for run, why in grid.failed}
    rows = []
    for run in grid.plan.runs:
        result = grid.results[run.id]
        done = is_done(result, run)
        task = str(run.recipe["data"])
        spent = f"{sum(result.seconds.values()):,.1f}" if result and result.seconds else HOLE
        where = [names.get(task, task), str(run.recipe["shots"]), str(run.recipe["seed"])]
        cells = [*where, "done" if done else _state(grid, run, failed), spent, run.id]
        rows.append((run.label, tuple(map(Entry, cells))))
    return Sheet("", ("trained on", "shots", "seed", "state", "s", "id"), tuple(rows))


def named(text: str, names: Mapping[str, str]) -> str:
    """A title or column with its task's short name, also within words around it."""
    if text in names:
        return names[text]
    for start, end in (("trained on ", ""), ("", " (source)"), ("source of ", ""), ("targets of ", "")):
        inner = text.removeprefix(start).removesuffix(end)
        if text == start + inner + end and inner in names:
            return start + names[inner] + end
    return text
