"""The study's tables and plots, from its store: what stands between the markers of two pages, and two PNG files.

What is between ``<!-- begin NAME … -->`` and ``<!-- end NAME -->`` is written anew by every call, and the text around
it is left alone. A page that is not there begins with all blocks and no other text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from curves import lengths, weights
from results import Part, Scores, best, difference, extent, ranking, walk
from stages import Stage, Study

from rmadapter.errors import DataError
from rmadapter.files import write_text
from rmadapter.store import Result

SINGLE, FULL, MMA, ZERO = "single branch", "RMAdapter", "MMA", "zero-shot"
"""Arms that others are compared with."""
HOLE = "–"
READ = (
    "\n\nOther themes: those that nothing was chosen on. Of one comparison of ten themes, a difference below 2.3 "
    "standard errors says nothing; there are some thirty here. Private down is a placebo: its reconstruction reaches "
    "nothing that predicts, and moves the initial values alone. What is not above its difference, nor above 2.3 "
    "errors, is not claimed."
)
"""How far to trust the paper's table."""
BEGIN, END = "<!-- begin {0}: tools/reconstruction/study.py page -->", "<!-- end {0} -->"

Walked = Sequence[tuple[Stage, list[Part] | None]]


def write_pages(study: Study, out: Path, page: Path) -> None:
    """Fill the blocks of the account and of the page of all tables beside it, and draw the plots.

    Raises:
        DataError: for a page that lacks the markers of a block.
    """
    walked = list(walk(study, out))
    images = page.parent.parent / "images" / "reconstruction"
    images.mkdir(parents=True, exist_ok=True)
    for file, title, blocks in (
        (page, "Does reconstruction pay?", ACCOUNT),
        (page.with_name(f"{page.stem}-tables.md"), "Does reconstruction pay? All tables", TABLES),
    ):
        text = file.read_text(encoding="utf-8") if file.exists() else skeleton(title, blocks)
        for name, (_, make) in blocks.items():
            text = filled(text, name, make(walked), file)
        for name, (about, draw) in PLOTS.items() if blocks is ACCOUNT else ():
            drawn = draw(walked, images / f"{name}.png")
            text = filled(text, name, f"![{about}](../images/reconstruction/{name}.png)" if drawn else NOTHING, file)
        write_text(file, text)


def skeleton(title: str, blocks: Mapping[str, tuple[str, object]]) -> str:
    """A page of blocks."""
    named = {**blocks, **(PLOTS if blocks is ACCOUNT else {})}
    parts = [f"## {about}\n\n{BEGIN.format(name)}\n{END.format(name)}\n" for name, (about, _) in named.items()]
    return "\n".join([f"# {title}\n", *parts])


def filled(text: str, name: str, content: str, page: Path) -> str:
    """The text with one block's content replaced."""
    begin, end = BEGIN.format(name), END.format(name)
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(found.findall(text)) != 1:
        raise DataError(
            f"{page} has not one block {name!r}", allowed=f"{begin} … {end}", remedy="put the two lines back"
        )
    return found.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], found: Sequence[Part] = ()) -> str:
    """Markdown; below it what the numbers are, and how many runs are missing."""
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    lines += [f"| {' | '.join(HOLE if cell is None else str(cell) for cell in row)} |" for row in rows]
    if not found:
        return "\n".join(lines)
    over: dict[str, list[str]] = {}
    for part in found:
        over.setdefault(extent(part), []).append(part.stage.name)
    means = "; ".join(key if len(over) == 1 else f"{', '.join(dict.fromkeys(own))}: {key}" for key, own in over.items())
    said = (
        f"Percent, means over tasks ({means}). ±: standard error; of a score over seeds, of a difference over tasks, "
    )
    said += "with the number of tasks on which it is above 0."
    missing = sum(len(part.grid.open) for part in found)
    holes = f" {missing} runs failed or are missing; what needs one is shown as {HOLE}." if missing else ""
    return "\n".join([*lines, "", said + holes])


def named(walked: Walked, name: str) -> list[Part]:
    """A stage's parts; none where it cannot be planned yet."""
    return next((found or [] for stage, found in walked if stage.name == name), [])


def stages(walked: Walked) -> str:
    """What each stage asks, and how much it ran."""
    rows: list[list[object]] = []
    for stage, found in walked:
        runs = [run for part in found or [] for run in part.grid.plan.runs]
        seconds = [sum(result.seconds.values()) for part in found or [] for result in part.results()]
        done = len(runs) - sum(len(part.grid.open) for part in found or [])
        each = f"{len(stage.arms)} × {len(stage.settings)} × {max(1, len(stage.tried))}"
        counts = [each, f"{done} of {len(runs)}" if found else None, f"{sum(seconds) / 3600:.1f}" if found else None]
        rows.append([stage.name, stage.about, stage.items, ", ".join(map(str, stage.seeds)), *counts])
    columns = ("stage", "asks", "items", "seeds", "arms × settings × candidates", "runs", "hours of one core")
    tuned, every = (
        {
            run.id
            for stage, found in walked
            if stage.items in items
            for part in found or []
            for run in part.grid.plan.runs
        }
        for items in (("val",), ("val", "test"))
    )
    said = f"{len(tuned)} different runs to choose by, {len(every) - len(tuned)} to measure."
    return f"{table(columns, rows)}\n\n{said}"


def chosen(walked: Walked) -> str:
    """What each stage chose, and how clearly: validation HM, and the runner-up's."""
    rows: list[list[object]] = []
    for stage, found in walked:
        if found is None or stage.choose == "none" or any(part.waiting for part in found):
            continue
        cells = [(part, arm) for part in found for arm in stage.arms]
        groups = [cells] if stage.choose == "together" else [[cell] for cell in cells]
        for group in groups:
            ranked = ranking(stage, group)
            arm = "all arms" if stage.choose == "together" else group[0][1]
            winner = best(stage, group) if ranked else None
            shown = [f"{candidate.label}: {value:.1f}" for candidate, value in ranked if candidate != winner]
            own = next((f"{value:.1f}" for candidate, value in ranked if candidate == winner), None)
            name = winner.label if winner else "nothing was trained to its end"
            rows.append([stage.name, arm, group[0][0].setting, name, own, "; ".join(shown[:2])])
    return table(("stage", "arm", "setting", "chosen", "HM", "the best others"), rows)


def candidates(walked: Walked) -> str:
    """Every validation score."""
    rows: list[list[object]] = []
    for stage, found in walked:
        for part in found or []:
            for arm, candidate in part.labels if stage.items == "val" else ():
                scores = part.scores(arm, candidate)
                cells = [scores.mean(role) for role in ("base", "novel", "HM")]
                rows.append([stage.name, arm, part.setting, candidate or "as chosen", *cells])
    parts = [part for stage, found in walked if stage.items == "val" for part in found or []]
    return table(("stage", "arm", "setting", "candidate", "base", "novel", "HM"), rows, parts)


def row(part: Part, arm: str, others: Sequence[str], role: str = "HM") -> list[object]:
    """Base, novel, HM, and the paired difference of a role to other arms."""
    scores = part.scores(arm)
    versus = [difference(scores, part.scores(other), role) if other != arm else "" for other in others]
    return [arm, *(scores.mean(each) for each in ("base", "novel", "HM")), *versus]


def ablation(walked: Walked) -> str:
    """The paper's table."""
    found = named(walked, "ablation")
    columns = ("", "trained", "base", "novel", "HM", f"HM − {SINGLE}", f"HM − {FULL}", f"HM − {SINGLE}, other themes")
    tuned = {
        str(task)
        for stage, parts in walked
        if stage.choose != "none"
        for part in parts or []
        for task in part.grid.distinct("data")
    }
    rows = list[list[object]]()
    for part in found:
        for arm in part.stage.arms:
            name, *cells = row(part, arm, (SINGLE, FULL))
            apart = difference(part.scores(arm), part.scores(SINGLE), "HM", without=[*tuned]) if arm != SINGLE else ""
            rows.append([name, parameters(part.results(arm)), *cells, apart])
    return table(columns, rows, found) + (READ if found else "")


def parameters(results: Sequence[Result]) -> str | None:
    """How many an arm trains; they are the same on every task."""
    counts = sorted({result.trained_parameters for result in results if result.trained_parameters is not None})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else None


def against(walked: Walked) -> str:
    """The tuned method against single branch and MMA, where it learned and in another style."""
    rows: list[list[object]] = []
    parts = [(where, part) for where in ("ablation", "styles") for part in named(walked, where)]
    for where, part in parts:
        ours = part.scores(FULL)
        for other in (SINGLE, MMA, ZERO):
            theirs = part.scores(other)
            cells = [difference(ours, theirs, role) for role in ("base", "novel", "HM")]
            rows.append([{"ablation": "its own style", "styles": "another style"}[where], f"{FULL} − {other}", *cells])
    return table(("tested in", "", "base", "novel", "HM"), rows, [part for _, part in parts])


def _kept(walked: Walked) -> tuple[list[tuple[str, Part]], tuple[str, ...]]:
    """Settings where something has to be kept, behind the usual one, and the arms that are looked at in them."""
    parts = [part for name in ("ablation", "keep", "curve", "styles") for part in named(walked, name)]
    arms = next((stage.arms for stage, _ in walked if stage.name == "keep"), ())
    return [("another style" if part.stage.name == "styles" else part.setting, part) for part in parts], arms


def kept(walked: Walked) -> str:
    """What each arm has more than the single branch there, and than zero-shot on novel classes; a row a setting."""
    parts, arms = _kept(walked)
    others = [arm for arm in arms if arm not in (ZERO, SINGLE)]
    gained: list[list[object]] = []
    retained: list[list[object]] = []
    for where, part in parts:
        single, zero = part.scores(SINGLE), part.scores(ZERO)
        gained.append([where, single.mean("HM"), *(difference(part.scores(arm), single, "HM") for arm in others)])
        novel = [difference(part.scores(arm), zero, "novel") for arm in (SINGLE, *others)]
        retained.append([where, zero.mean("novel"), *novel])
    first = table((f"HM − {SINGLE}", f"{SINGLE}, HM", *others), gained)
    second = table((f"novel − {ZERO}", f"{ZERO}, novel", SINGLE, *others), retained, [part for _, part in parts])
    return f"{first}\n\n{second}"


def settings(walked: Walked) -> str:
    """Base, novel and HM of each arm in each setting."""
    parts, arms = _kept(walked)
    rows: list[list[object]] = []
    for where, part in parts:
        for arm in arms:
            novel = difference(part.scores(arm), part.scores(ZERO), "novel") if arm != ZERO else ""
            rows.append([where, *row(part, arm, (SINGLE,)), novel])
    columns = ("setting", "", "base", "novel", "HM", f"HM − {SINGLE}", f"novel − {ZERO}")
    return table(columns, rows, [part for _, part in parts])


def each_theme(walked: Walked) -> str:
    """HM of every arm of the ablation on each task."""
    found = named(walked, "ablation")
    if not found:
        return table(("",), [])
    scores: dict[str, Scores] = {arm: found[0].scores(arm) for arm in found[0].stage.arms}
    tasks = scores[SINGLE].tasks
    rows = [[arm, *(_one(own.task("HM", task)) for task in tasks)] for arm, own in scores.items()]
    return table(("", *(task.rpartition("/")[2] for task in tasks)), rows)


def _one(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def computed(walked: Walked) -> str:
    """With what it was computed."""
    results = [result for _, found in walked for part in found or [] for result in part.results()]
    if not results:
        return "Nothing has been run."
    lines = []
    for what, values in (
        ("versions", [", ".join(f"{k} {v}" for k, v in result.versions.items()) for result in results]),
        ("machine", [", ".join(f"{k} {v}" for k, v in result.machine.items()) for result in results]),
        ("commit", [str(result.commit) for result in results]),
    ):
        counted = Counter(values).most_common()
        lines += [f"- {what}: {value}" + (f" ({count} runs)" if len(counted) > 1 else "") for value, count in counted]
    steps = [r.training["seconds"] / r.training["steps"] for r in results if r.training and r.training.get("steps")]
    return "\n".join([*lines, f"- {1000 * fmean(steps):.0f} ms an update, mean over runs"] if steps else lines)


ACCOUNT: dict[str, tuple[str, Callable[[Walked], str]]] = {
    "ablation": ("The paper's table, on test items", ablation),
    "against": ("The tuned method against others", against),
    "kept": ("Where something has to be kept", kept),
}
"""The account's tables: a title and what fills it."""
TABLES: dict[str, tuple[str, Callable[[Walked], str]]] = {
    "stages": ("What was asked", stages),
    "chosen": ("What was chosen, on validation items", chosen),
    "settings": ("Where something has to be kept", settings),
    "themes": ("Each theme, HM", each_theme),
    "candidates": ("Every candidate, validation items", candidates),
    "computed": ("Computed with", computed),
}
PLOTS: dict[str, tuple[str, Callable[[Walked, Path], bool]]] = {
    "weights": ("Base against novel over λ", lambda walked, path: weights(*_weighed(walked), path)),
    "lengths": (
        "Retention against training length",
        lambda walked, path: lengths(named(walked, "curve"), named(walked, "ablation"), path),
    ),
}
"""The account's plots; False where there is nothing to draw."""
NOTHING = "Not run yet."


def _weighed(walked: Walked) -> tuple[list[Part], list[Part]]:
    """Stages that try weights at several rates, and the one that has zero-shot."""
    tried = ("single", "reconstruction", "consistency", "both")
    return [part for name in tried for part in named(walked, name)], named(walked, "recipe")
