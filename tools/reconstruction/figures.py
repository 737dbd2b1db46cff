"""The study's tables and plots, from its store: what stands between the markers of two pages, and two PNG files.

What is between ``<!-- begin NAME … -->`` and ``<!-- end NAME -->`` is written anew by every call, and the text around
it is left alone. A page that is not there begins with all blocks and no other text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from curves import lengths, weights
from results import CLOSE, ROLES, Part, Scores, Walked, best, difference, extent, ranking

from rmadapter.errors import DataError
from rmadapter.files import write_text
from rmadapter.store import Result

SINGLE, SHARED, CONSISTENCY, FULL = "single branch", "+ reconstruction, shared down", "consistency only", "RMAdapter"
PLACEBO, MMA, ZERO = "RMAdapter, private down", "MMA", "zero-shot"
"""Arms that others are compared with."""
HOLE = "–"
READ = (
    "\n\nHM: of base and novel accuracy on each task, then the mean. One question stands before all others: RMAdapter "
    "− consistency only, which is what reconstruction adds to the rest of the method (decided when seed 2 was there). "
    "A difference over ten themes of less than 2.3 standard errors (2.5 over seven) says nothing, and of the "
    "some ninety others in these tables four or five exceed it by chance. Initial values and batches of a seed are the "
    "same on all themes, so that its draw moves them together, and ± is too small by that: what is claimed has one "
    "sign in every seed besides."
)
"""How far to trust the paper's table."""
TERMS = ("ce", "reconstruction_image", "reconstruction_text", "consistency_image", "consistency_text")
"""Losses as runs call them."""
BEGIN, END = "<!-- begin {0}: tools/reconstruction/study.py page -->", "<!-- end {0} -->"


def write_pages(walked: Walked, page: Path) -> None:
    """Fill the blocks of the account and of the page of all tables beside it, and draw the plots.

    Raises:
        DataError: for a page that lacks the markers of a block.
    """
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
        "with the number of tasks on which it is above 0."
    )
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
            rows.append([stage.name, arm, group[0][0].setting, len(stage.tried), name, own, "; ".join(shown[:2])])
    said = f"The first of a stage's candidates stays unless another is better by {CLOSE} points."
    return f"{table(('stage', 'arm', 'setting', 'tried', 'chosen', 'HM', 'the best others'), rows)}\n\n{said}"


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
    return [arm, *(scores.mean(each) for each in ROLES), *versus]


def ablation(walked: Walked) -> str:
    """The paper's table, with the placebo that has a stage of its own."""
    found, more = named(walked, "ablation"), named(walked, "placebo")
    rows = list[list[object]]()
    for part in found:
        single, full = part.scores(SINGLE), part.scores(FULL)
        for own, arm in [(part, arm) for arm in part.stage.arms] + [(p, arm) for p in more for arm in p.stage.arms]:
            scores = own.scores(arm)
            versus = [difference(scores, single, role) if arm != SINGLE else "" for role in ROLES]
            full_too = difference(scores, full, "HM") if arm != FULL else ""
            rows.append([arm, parameters(own.results(arm)), *map(scores.mean, ROLES), *versus, full_too])
    columns = ("", "trained", *ROLES, *(f"{role} − {SINGLE}" for role in ROLES), f"HM − {FULL}")
    return table(columns, rows, [*found, *more]) + (READ if found else "")


def parameters(results: Sequence[Result]) -> str | None:
    """How many an arm trains; they are the same on every task."""
    counts = sorted({result.trained_parameters for result in results if result.trained_parameters is not None})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else None


def against(walked: Walked) -> str:
    """The tuned method against its parts and others, where it learned and in another style."""
    rows: list[list[object]] = []
    parts = [(where, part) for where in ("ablation", "styles") for part in named(walked, where)]
    for where, part in parts:
        place = {"ablation": "its own style", "styles": "another style"}[where]
        others = [(other, part.scores(other)) for other in (CONSISTENCY, SINGLE, MMA, ZERO)]
        if where == "ablation":
            others[1:1] = [(PLACEBO, more.scores(PLACEBO)) for more in named(walked, "placebo")]
            others[3:3] = [(f"{SINGLE}, {more.setting}", more.scores(SINGLE)) for more in named(walked, "same rate")]
        rows += [[place, *compared(FULL, part.scores(FULL), *other)] for other in others]
    return table(("tested in", "", *ROLES, "HM, seed by seed"), rows, [part for _, part in parts])


def compared(name: str, one: Scores, other_name: str, other: Scores) -> list[object]:
    """One arm minus another: base, novel, HM; and HM in each seed."""
    seeds = [difference(one, other, "HM", [seed]) for seed in one.seeds]
    each = ", ".join(HOLE if found is None else f"{found.mean:+.1f}" for found in seeds)
    return [f"{name} − {other_name}", *(difference(one, other, role) for role in ROLES), each]


def rates(walked: Walked) -> str:
    """With and without each loss, all at the rate of the arms that have consistency."""
    found, same = named(walked, "ablation"), named(walked, "same rate")
    rows: list[list[object]] = []
    differences: list[list[object]] = []
    for part, other in zip(found, same, strict=False):
        arms = [(SINGLE, other.scores(SINGLE)), (SHARED, other.scores(SHARED))]
        arms += [(arm, part.scores(arm)) for arm in (CONSISTENCY, FULL)]
        rows += [[arm, *map(scores.mean, ROLES)] for arm, scores in arms]
        pairs = [(1, 0), (3, 2), (2, 0), (3, 1)]
        differences += [compared(*arms[one], *arms[less]) for one, less in pairs]
    first = table((f"at {same[0].setting}" if same else "", *ROLES), rows)
    return f"{first}\n\n{table(('', *ROLES, 'HM, seed by seed'), differences, [*found[:1], *same])}"


def others(walked: Walked) -> str:
    """The ablation's arms on themes that nothing was chosen on, and against consistency only."""
    tuned = {
        str(task)
        for stage, parts in walked
        if stage.choose != "none"
        for part in parts or []
        for task in part.grid.distinct("data")
    }
    rows: list[list[object]] = []
    found = named(walked, "ablation")
    for part in found:
        for arm in part.stage.arms:
            own = part.scores(arm)
            apart = [
                difference(own, part.scores(other), "HM", without=[*tuned]) if other != arm else ""
                for other in (SINGLE, CONSISTENCY)
            ]
            versus = compared(arm, own, CONSISTENCY, part.scores(CONSISTENCY))[1:]
            rows.append([arm, *apart, *(versus if arm != CONSISTENCY else [""] * len(versus))])
    columns = [f"HM − {other}, other themes" for other in (SINGLE, CONSISTENCY)]
    return table(("", *columns, *(f"{role} − {CONSISTENCY}" for role in ROLES), "HM, seed by seed"), rows, found)


def terms(walked: Walked) -> str:
    """What each loss was in the last epoch, without its weight, and what an update took."""
    rows: list[list[object]] = []
    parts = [part for name in ("ablation", "placebo", "same rate") for part in named(walked, name)]
    for part in parts:
        for arm in part.stage.arms:
            results = [result for result in part.results(arm) if result.training and result.training.get("steps")]
            if not results:
                continue
            name = arm if part.stage.name != "same rate" else f"{arm}, {part.setting}"
            took = [1000 * r.training["seconds"] / r.training["steps"] for r in results if r.training]
            rows.append([name, *(_term(results, key) for key in TERMS), f"{median(took):.0f}"])
    columns = ["cross-entropy", "rebuilt image", "rebuilt text", "kept image", "kept text", "ms an update, median"]
    said = "rebuilt: reconstruction error, summed over blocks; kept: mean absolute difference of features, in 1e-4."
    return f"{table(('', *columns), rows)}\n\nMeans over the last epoch and all runs; {said}"


def _term(results: Sequence[Result], key: str) -> str | None:
    """A loss's mean over runs, divided by its weight; None where it has none."""
    weighed = [
        (result.training["terms"][key], 1.0 if key == "ce" else result.recipe["method_settings"][key])
        for result in results
        if result.training and key in result.training["terms"]
    ]
    found = [value / weight for value, weight in weighed if weight]
    if not found:
        return None
    return f"{10000 * fmean(found):.0f}" if key.startswith("consistency") else f"{fmean(found):.3f}"


def _kept(walked: Walked) -> tuple[list[tuple[str, Part]], tuple[str, ...]]:
    """Settings where something has to be kept, behind the usual one, and the arms that are looked at in them."""
    parts = [part for name in ("ablation", "few", "strong", "curve", "styles") for part in named(walked, name)]
    arms = next((stage.arms for stage, _ in walked if stage.name == "few"), ())
    return [("another style" if part.stage.name == "styles" else part.setting, part) for part in parts], arms


def kept(walked: Walked) -> str:
    """What each arm has more than the single branch there, and than zero-shot on novel classes; a row a setting."""
    parts, arms = _kept(walked)
    others = [arm for arm in arms if arm not in (ZERO, SINGLE)]
    gained: list[list[object]] = []
    retained: list[list[object]] = []
    for place, part in parts:
        where = f"{place}, {extent(part).partition(', ')[2]}"
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
    "against": ("The tuned method against its parts and others", against),
    "rates": ("The same rate with and without each loss", rates),
    "kept": ("Where something has to be kept", kept),
}
"""The account's tables: a title and what fills it."""
TABLES: dict[str, tuple[str, Callable[[Walked], str]]] = {
    "stages": ("What was asked", stages),
    "chosen": ("What was chosen, on validation items", chosen),
    "others": ("The table's arms on the other themes, and against consistency only", others),
    "terms": ("What the losses were at the end", terms),
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
