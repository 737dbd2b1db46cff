"""What a report says of one protocol, in the order in which a reader asks: who is best, is it more than chance, how
sure, at what price, and what exactly was run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rmadapter.compare import differences
from rmadapter.measures import Measure, compared, levels, measures
from rmadapter.page import figures, sheets
from rmadapter.page.figures import Plot, Style
from rmadapter.page.ran import Ran, counted, ran
from rmadapter.page.sheets import Sheet
from rmadapter.store import Levels, digest
from rmadapter.tables import NAMES, Cell, Grid, tables

LONGEST = 100
"""Letters of a plot's file name, about."""
COST = (
    "Means over a method's finished runs, in seconds of the clock; what else the machine did at that time is in them. "
    "Memory is the largest of any run: the device's where there is one, else the process's."
)


@dataclass(frozen=True)
class Section:
    """A heading with text, plots and tables below it."""

    title: str
    words: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    """Those that are read first."""
    more_plots: tuple[Plot, ...] = ()
    """One a task."""
    more: tuple[Sheet, ...] = ()
    """One a task."""
    small: bool = False
    """Plots that are read side by side."""


@dataclass(frozen=True)
class Chapter:
    """All of one protocol."""

    name: str
    about: str
    finished: int
    wanted: int
    failed: int
    sections: tuple[Section, ...]
    ran: Ran


def chapter(grid: Grid, baseline: str | None, style: Mapping[str, Style]) -> Chapter:
    """A protocol's part of the page.

    Args:
        baseline: what methods are compared with; None: nothing, and the page says so.
        style: how every label is drawn.
    """
    names = sheets.names_of(grid)
    found = (
        _accuracy(grid, names, style),
        _differences(grid, baseline, names, style),
        _calibration(grid, names),
        Section("Cost", (COST,), sheets=(sheets.cost(grid, names), *sheets.added_cost(grid))),
    )
    return Chapter(
        name=grid.plan.protocol,
        about=grid.protocol.about,
        finished=len(grid.plan.runs) - len(grid.open),
        wanted=len(grid.plan.runs),
        failed=len(grid.failed),
        sections=found,
        ran=ran(grid, names),
    )


def _accuracy(grid: Grid, names: Mapping[str, str], style: Mapping[str, Style]) -> Section:
    made = tables(grid)
    tasks: list[str | None] = [str(task) for task in grid.distinct("data")]
    from_source = grid.protocol.kind == "source"
    of = tasks if from_source else [None, *tasks]
    found = [sheets.scores(grid, table, data, names) for table, data in zip(made, of, strict=True)]
    plots: list[Plot] = []
    mean = f"mean over {_seeds(grid)} ± standard error of the mean"
    mean = mean if len(grid.distinct("seed")) > 1 else f"{_seeds(grid)} alone"
    words = [f"Percent; {mean}. In bold: the best of a column.", *sheets.blanks(grid)]
    if grid.protocol.kind == "halves":
        plots, left_out = _scatter(grid, style)
        words += left_out
    if grid.protocol.two_backbones:
        words.append(NAMES)
    if grid.protocol.kind == "curve":
        plots, said = _curves(grid, names, style)
        words += said
    first = len(found) if from_source else 1
    return Section(
        "Accuracy",
        tuple(words),
        plots=tuple(plots[:1]),
        sheets=tuple(found[:first]),
        more_plots=tuple(plots[1:]),
        more=tuple(found[first:]),
    )


def _scatter(grid: Grid, style: Mapping[str, Style]) -> tuple[list[Plot], list[str]]:
    base, novel = measures(grid)
    points = {label: (base.over_tasks(label), novel.over_tasks(label)) for label in grid.labels}
    known = {label: cells for label, cells in points.items() if None not in (cells[0].mean, cells[1].mean)}
    out = [label for label in points if label not in known and label not in novel.unasked]
    words = [f"Not in the plot, since runs are missing: {', '.join(out)}."] if out else []
    if not known:
        return [], words
    title = f"Base against novel, mean over {counted(len(base.tasks), 'task')}"
    about = "Up: better on classes never trained on. Right: better on trained ones. Lines: equal harmonic mean (HM)."
    draw = partial(figures.base_against_novel, known, style, title)
    return [Plot(_file(grid, "base-against-novel"), title, about, draw)], words


def _curves(grid: Grid, names: Mapping[str, str], style: Mapping[str, Style]) -> tuple[list[Plot], list[str]]:
    """The mean over tasks, with the legend of all, then each task."""
    of_shots = {int(str(count)): m for count, m in zip(grid.distinct("shots"), measures(grid), strict=True)}
    shots = sorted(of_shots)
    tasks = of_shots[shots[0]].tasks
    about = "Accuracy against training images a class; bars: standard errors over seeds; a gap: runs are missing."
    rows: dict[str, dict[str, list[Cell]]] = {}
    if len(tasks) > 1:
        rows[""] = {label: [of_shots[n].over_tasks(label) for n in shots] for label in grid.labels}
    for task in tasks:
        rows[names[task]] = {label: [of_shots[n].task(label, task) for n in shots] for label in grid.labels}
    known = {name: [label for label in of if any(c.mean is not None for c in of[label])] for name, of in rows.items()}
    everywhere = [label for label in grid.labels if any(label in labels for labels in known.values())]
    found: list[Plot] = []
    for name, of in rows.items():
        if known[name]:
            title = name or f"Mean over {len(tasks)} tasks"
            shown = {label: of[label] for label in (known[name] if found else everywhere)}
            draw = partial(figures.over_shots, shown, shots, style, title, not found)
            found.append(Plot(_file(grid, "shots", title), title, about, draw, explained=not found))
    out = [f"{label} ({name or 'mean'})" for name, of in rows.items() for label in of if label not in known[name]]
    return found, [f"Not in a plot, since runs are missing: {', '.join(out)}."] if out else []


def _differences(grid: Grid, baseline: str | None, names: Mapping[str, str], style: Mapping[str, Style]) -> Section:
    others = [label for label in grid.labels if label != baseline]
    if baseline is None or not others:
        said = (
            "There is no other method to compare with." if not others else "The baseline is not among the methods here."
        )
        return Section("Differences", (f"{said} --baseline names a method that the others are compared with.",))
    made, plots = [], []
    known = [measure for measure in compared(grid) if baseline not in measure.unasked]
    if not known:
        return Section("Differences", (f"{baseline} was not asked for anything that others are compared by.",))
    for measure in known:
        rows = differences(measure, grid.labels, baseline)
        made.append(sheets.differences(grid, measure, rows, baseline, names))
        if all(value is None for row in rows for value in row.by_task):
            continue
        title = _capital(measure.name)
        about = f"{title}: a ring a task, a bar at their mean; right of the line: better than {baseline}."
        draw = partial(figures.against_baseline, rows, baseline, style, title)
        plots.append(Plot(_file(grid, "difference", measure.name), title, about, draw))
    words = (*_test_in_words(known, len(others)), *_left_out(grid, baseline))
    return Section(f"Differences to {baseline}", words, tuple(plots), tuple(made))


def _test_in_words(found: Sequence[Measure], methods: int) -> tuple[str, ...]:
    fewest = min(len(measure.tasks) for measure in found)
    least = 0.5 ** (fewest - 1)
    small = f"{least:.2g}" if least >= 0.001 else f"{least:.0e}"
    said = (
        "A task counts once, by its mean over seeds. + / = / −: tasks that are better, equal, worse. p: Wilcoxon's "
        f"signed-rank test over tasks, two-sided; with {counted(fewest, 'task')} it cannot be below {small}."
    )
    if least > 0.05:
        said += " So few tasks can show no difference at the usual level of 0.05."
    holm = "p, Holm: the same, adjusted for all methods of a table." if methods > 1 else ""
    return tuple(filter(None, (said, holm)))


def _left_out(grid: Grid, baseline: str) -> tuple[str, ...]:
    """Which methods have no place in some tables, since they were not asked for what these compare."""
    unasked = [label for label in grid.labels if any(label in measure.unasked for measure in measures(grid))]
    if baseline in unasked:
        return (f"Only what {baseline} was asked for is compared.",)
    return (f"Only in tables of what it was asked for: {', '.join(unasked)}.",) if unasked else ()


def _calibration(grid: Grid, names: Mapping[str, str]) -> Section:
    drawn, left_out = [], []
    found = measures(grid)
    parts = [found[0], found[-1]] if grid.protocol.kind == "curve" and len(found) > 1 else found
    for label in grid.labels:
        asked = [part for part in parts if label not in part.unasked]
        of = {sheets.named(part.name, names): levels(grid, label, part) for part in asked}
        known: dict[str, Levels] = {name: each for name, each in of.items() if each is not None}
        if len(known) < len(of):
            left_out.append(label)
            continue
        about = f"{label}: the share of test images that is named right at each level of confidence."
        draw = partial(figures.reliability, known, label)
        drawn.append(Plot(_file(grid, "reliability", label), label, about, draw))
    words = [
        "ECE: mean gap between confidence and accuracy over 15 bins of confidence; the mean over tasks ± standard "
        "error over seeds. Above 0, confidence minus accuracy says too sure; below, not sure enough.",
        *sheets.blanks(grid),
    ]
    if drawn:
        words.append(
            "In the plots all test images of all tasks and seeds are one; below the diagonal: too sure. A level with "
            f"fewer than {figures.SCARCE} images is not drawn."
        )
    if left_out:
        words.append(f"Without a plot, since runs or their levels of confidence are missing: {', '.join(left_out)}.")
    return Section("Calibration", tuple(words), tuple(drawn), tuple(sheets.calibration(grid, names)), small=True)


def _seeds(grid: Grid) -> str:
    """Of all methods, and of those that have others."""
    everything = grid.distinct("seed")
    said = f"seed{'s' * (len(everything) != 1)} {', '.join(map(str, everything))}"
    others = []
    for label in grid.labels:
        own = list(dict.fromkeys(run.recipe["seed"] for run in grid.runs(label=label)))
        if sorted(own) != sorted(map(int, map(str, everything))):
            others.append(f"{label}: {', '.join(map(str, own))} only")
    return f"{said} ({'; '.join(others)})" if others else said


def plots(found: Chapter) -> Iterator[Plot]:
    """All of a chapter."""
    for section in found.sections:
        yield from (*section.plots, *section.more_plots)


def _file(grid: Grid, *words: str) -> str:
    """What a plot's files are called: letters, digits and few signs, whatever a label holds, and no two the same."""
    whole = "-".join((grid.plan.protocol, *words)).replace(" ", "-")
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", whole)[:LONGEST]
    return plain if plain == whole else f"{plain}-{digest(whole)[:6]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
