"""The tables of docs/experiments/transfer.md, made from the sweep that is committed in results/transfer, never typed.

    python tools/transfer_page.py            print them
    python tools/transfer_page.py --write    put them between their marks in the page

A test holds the page to what this prints.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from readme_table import missing, provenance, put
from rmadapter.compare import Difference, differences
from rmadapter.errors import UserError
from rmadapter.files import write_text
from rmadapter.measures import Measure, compared
from rmadapter.store import Store
from rmadapter.tables import NAMES, Grid, added

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = "results/transfer", "docs/experiments/transfer.md"
CHOSEN_ON = ("pictograms/animals", "pictograms/food", "pictograms/transport")
"""Themes whose validation items chose settings; the others are untouched."""
BEGIN, END = "<!-- begin {0}: tools/transfer_page.py -->", "<!-- end {0} -->"


def blocks(folder: Path) -> dict[str, str]:
    """What stands between the marks of the page, by name. Raises DataError for a folder that holds no such sweep."""
    store = Store(folder)
    (grid,) = (Grid.read(plan, store) for plan in store.plans())
    return {"scores": scores(grid), "claims": claims(grid), "cost": cost(grid)}


def scores(grid: Grid) -> str:
    """Base, novel and HM of every row, over all themes and over those that chose nothing."""
    harmonic, base, novel = compared(grid)
    order = [base, novel, harmonic]
    columns = [each.name for each in order] + [f"{each.name}, untouched" for each in order] + ["trained parameters"]
    measures = [*order, *map(untouched, order)]
    rows = [(label, [*(each.over_tasks(label) for each in measures), trained(grid, label)]) for label in grid.labels]
    themes = f"{len(base.tasks)} themes; untouched: the {len(untouched(base).tasks)} that chose no setting"
    seeds = ", ".join(str(seed) for seed in grid.distinct("seed"))
    words = f"Percent, means over {themes}. HM: of each theme, then the mean. ±: standard error over seeds {seeds}."
    about = f"{provenance([grid])} Store: `{RESULTS}/`."
    return "\n\n".join([table(columns, rows), f"{words} {NAMES}", about, *missing([grid])])


def trained(grid: Grid, label: str) -> str:
    """Parameters that the row itself trained, mean over its runs."""
    results = [grid.results[run.id] for run in grid.runs(label=label)]
    known = [result.trained_parameters for result in results if result and result.trained_parameters is not None]
    return f"{round(fmean(known)):,}" if known else "–"


def claims(grid: Grid) -> str:
    """Every row minus the target's zero-shot, and minus what was trained on the target, theme by theme."""
    harmonic, _, novel = compared(grid)
    zero, *direct = on_target(grid)
    columns = ("all themes", "all themes, seed by seed", "p", "untouched themes")
    parts = []
    for name, measure, baseline in [("novel", novel, zero), *(("HM", harmonic, each) for each in (zero, *direct))]:
        few = {each.label: each for each in differences(untouched(measure), grid.labels, baseline)}
        every = differences(measure, grid.labels, baseline)
        rows = [(e.label, (paired(e), by_seed(measure, e.label, baseline), p(e), paired(few[e.label]))) for e in every]
        parts.append(f"**{name} − {baseline}**\n\n{table(columns, rows)}")
    words = (
        "Percentage points; ±: standard error over themes, with the number of themes on which it is above 0. p: "
        "Wilcoxon's signed-rank test over all themes, two-sided, adjusted for as many tests as there are rows (Holm)."
    )
    return "\n\n".join([*parts, words])


def on_target(grid: Grid) -> list[str]:
    """Labels of the target's zero-shot, which is every task's first run, and of what was trained on the target."""
    backbone = grid.plan.runs[0].recipe["backbone"]
    own = [run for run in grid.plan.runs if run.recipe["backbone"] == backbone and "transfer" not in run.recipe]
    return list(dict.fromkeys(run.label for run in own))


def untouched(measure: Measure) -> Measure:
    """The same without the themes that settings were chosen on."""
    return replace(measure, tasks=tuple(task for task in measure.tasks if task not in CHOSEN_ON))


def paired(each: Difference) -> str:
    """Mean over themes, standard error and count; – where a theme is missing."""
    known = [value for value in each.by_task if value is not None]
    if len(known) < len(each.by_task):
        return "–"
    error = stdev(known) / math.sqrt(len(known))
    return f"{fmean(known):+.1f} ± {error:.1f} ({sum(value > 0 for value in known)}/{len(known)})"


def by_seed(measure: Measure, label: str, baseline: str) -> str:
    """The mean over themes of each seed; – where a theme is missing."""
    values = measure.values
    tasks = [zip(values[label, task], values[baseline, task], strict=True) for task in measure.tasks]
    found = []
    for seed in zip(*tasks, strict=True):
        known = [one - other for one, other in seed if one is not None and other is not None]
        found.append(f"{fmean(known):+.1f}" if len(known) == len(measure.tasks) else "–")
    return ", ".join(found)


def p(each: Difference) -> str:
    """Adjusted; – where a theme is missing."""
    return "–" if each.holm is None else f"{each.holm:.3f}"


def cost(grid: Grid) -> str:
    """What each way adds to an image at inference, and the seconds of its parts."""
    made = added(grid)
    return str(made).partition("\n\n")[2] if made else "Nothing has been counted."


def table(columns: Iterable[str], rows: Iterable[tuple[str, Sequence[object]]]) -> str:
    """Markdown."""
    head = ["", *columns]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(str, cells))} |" for name, cells in rows)])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE}")
    write, page = parser.parse_args().write, ROOT / PAGE
    try:
        made = blocks(ROOT / RESULTS)
    except UserError as error:
        sys.exit(f"error: {error}")
    if not write:
        print("\n\n".join(made.values()))
        return
    text = page.read_text(encoding="utf-8")
    for name, block in made.items():
        text = put(text, block, BEGIN.format(name), END.format(name))
    write_text(page, text)


if __name__ == "__main__":
    main()
