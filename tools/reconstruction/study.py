"""Does reconstruction pay? Runs the stages of experiments/reconstruction in order, and writes what they found.

    python tools/reconstruction/study.py list                   stages, runs, what is done and what was chosen
    python tools/reconstruction/study.py run all --jobs 2       every stage; the same line again goes on
    python tools/reconstruction/study.py run optimiser blocks   some, once those above them that choose are finished
    python tools/reconstruction/study.py page                   tables, plots and scores into docs and results

Every stage starts from what those above it chose, and that is read from the store each time. Choosing reads OUT/tuning,
which holds validation scores only: a task that is scored there dropped its test items when it was loaded
(``Task.without_test``), and stages.toml cannot ask for anything else (``stages.Stage``). What is measured lies in
OUT/test. OUT/arms/ has every stage's arms with all settings, as files for ``rmadapter bench --arms``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from figures import write_pages
from results import Part, Walked, best, choose, folder, parts, ranking, walk
from stages import Chosen, Stage, Study, as_toml, plans

from rmadapter import sweep
from rmadapter.arms import Arm
from rmadapter.errors import UserError
from rmadapter.files import csv_text, write_text
from rmadapter.live import watching
from rmadapter.store import Plan, Planned, Store

ROOT = Path(__file__).resolve().parents[2]
SCORES = ("stage", "setting", "arm", "candidate", "task", "seed", "items", "base", "novel", "id")
"""Columns of the file of scores; accuracies in percent."""
SECONDS = 35 / 600
"""An update of RMAdapter on pictoclip-s on one core, until it has been measured."""


def run(study: Study, names: Sequence[str], out: Path, jobs: int = 1, device: str = "cpu") -> None:
    """Compute stages, in their order.

    Raises:
        UserError: for an unknown stage, one that starts from what is not chosen yet, or runs that failed. What
            diverges is no failure: it is not chosen, and has no score.
    """
    wanted = [stage.name for stage in study.stages] if "all" in names else [study.stage(name).name for name in names]
    chosen = Chosen()
    for stage in study.stages:
        if stage.name in wanted:
            compute(study, stage, chosen, out, jobs, device)
            wanted.remove(stage.name)
        if not wanted:
            return
        if stage.choose != "none":
            found = parts(study, stage, chosen, out)
            if any(part.waiting for part in found):
                raise UserError(
                    f"stage {wanted[0]!r} starts from what {stage.name!r} chooses, and that is not finished",
                    remedy=f"study.py run {stage.name!r} first, or all",
                )
            choose(found, chosen)


def compute(study: Study, stage: Stage, chosen: Chosen, out: Path, jobs: int, device: str) -> None:
    """What a stage's store has not yet."""
    store = folder(out, stage)
    for setting, plan in plans(study, stage, chosen).items():
        print(f"{stage.name} ({setting}): {stage.about}; {len(plan.runs)} runs", flush=True)
        write_arms(out / "arms" / f"{stage.name} ({setting}).toml".replace(": ", " "), stage, plan)
        with watching(plan, Store(store), jobs) as watch:
            sweep.run(plan, store, jobs=jobs, device=device, watch=watch)
    found = parts(study, stage, chosen, out)
    failed = [line for part in found for line in part.failures]
    print("".join(f"failed: {line}\n" for line in failed), end="", flush=True)
    again = sum(part.waiting for part in found)
    if again:
        raise UserError(f"{again} runs of stage {stage.name!r} failed", remedy="the same command tries them again")


def write_arms(file: Path, stage: Stage, plan: Plan) -> None:
    """A stage's arms with every setting, as ``rmadapter bench --arms`` reads them."""
    made = {}
    for planned in plan.runs:
        recipe = planned.recipe
        train = {key: value for key, value in recipe["train"].items() if key != "seed"}
        method = {"name": recipe["method"], **recipe["method_settings"]}
        made[planned.label] = Arm(planned.label, {"method": method, "train": train})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, as_toml(stage.about, list(made.values())))


def listing(study: Study, out: Path) -> str:
    """Stages, their runs, the time they need, and what they chose."""
    lines, total = [], 0.0
    for stage, found in walk(study, out):
        lines.append(f"{stage.name}: {stage.about}")
        if found is None:
            runs = [run for plan in plans(study, stage, Chosen()).values() for run in plan.runs]
            lines.append(f"  {stage.items}: {len(runs)} runs, {hours(runs):.1f} h; waits for what is chosen above")
            total += hours(runs)
            continue
        runs = [run for part in found for run in part.grid.plan.runs]
        left = [run for part in found for run in part.grid.open]
        lines.append(f"  {stage.items}: {len(runs) - len(left)} of {len(runs)} runs are done, {hours(left):.1f} h left")
        total += hours(left)
        lines += [f"  failed: {line}" for part in found for line in part.failures]
        if stage.choose != "none" and not any(part.waiting for part in found):
            lines += [f"  chosen: {line}" for line in winners(stage, found)]
    return "\n".join([*lines, f"at most {total:.1f} h of one core left; a run that two stages have is counted twice"])


def winners(stage: Stage, found: Sequence[Part]) -> list[str]:
    """What a finished stage chose, in words."""
    cells = [(part, arm) for part in found for arm in stage.arms]
    if stage.choose == "together":
        return [_winner(stage, cells)]
    return [f"{part.setting}, {arm}: {_winner(stage, [(part, arm)])}" for part, arm in cells]


def _winner(stage: Stage, cells: Sequence[tuple[Part, str]]) -> str:
    return best(stage, cells).label if ranking(stage, cells) else "nothing, since no candidate was trained to its end"


def scores(walked: Walked) -> str:
    """Every run that is done, as CSV: a row for each stage, setting, arm and candidate that has it."""
    rows: list[list[object]] = [[*SCORES]]
    for stage, found in walked:
        for part in found or []:
            for (arm, candidate), label in part.labels.items():
                for run in part.grid.runs(label=label):
                    base, novel = (part.grid.score(run, role) for role in ("base", "novel"))
                    where = [run.recipe["data"], run.recipe["seed"], stage.items]
                    if base is not None and novel is not None:
                        rows.append([stage.name, part.setting, arm, candidate, *where, base, novel, run.id])
    return csv_text(rows)


def hours(runs: Sequence[Planned]) -> float:
    """Of one core, for runs that are not done, by their updates."""
    updates = [run.recipe["train"]["updates"] or 0 for run in runs if run.recipe["method"] != "zero_shot"]
    return sum(updates) * SECONDS / 3600


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["list", "run", "page"])
    parser.add_argument("stages", nargs="*", help="names of stages, or all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("sweeps/reconstruction"))
    parser.add_argument("--study", type=Path, default=ROOT / "experiments" / "reconstruction")
    parser.add_argument("--scores", type=Path, default=ROOT / "results" / "reconstruction.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "experiments" / "reconstruction.md")
    arguments = parser.parse_args()
    if bool(arguments.stages) != (arguments.command == "run"):
        parser.error("run takes names of stages, or all; list and page take none")
    try:
        study = Study.load(arguments.study)
        if arguments.command == "run":
            run(study, arguments.stages, arguments.out, arguments.jobs, arguments.device)
        elif arguments.command == "list":
            print(listing(study, arguments.out))
        else:
            walked = list(walk(study, arguments.out))
            write_pages(walked, arguments.page)
            write_text(arguments.scores, scores(walked))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
