"""What a stage's runs scored, and what that chooses; from the store and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

from stages import Candidate, Chosen, Stage, Study, plans

from rmadapter.errors import UserError
from rmadapter.store import Planned, Result, Store
from rmadapter.tables import Cell, Grid, hm, mean, mean_over_seeds

ROLES = ("base", "novel", "HM")
DIVERGED = "the loss is not finite"
"""How the error of a run begins whose settings cannot train: such a candidate is not chosen."""


CLOSE = 0.5
"""Points of HM that say nothing: one seed on three themes."""


@dataclass(frozen=True)
class Scores:
    """Base, novel and HM of an arm, percent, by role, task and seed; None where a run is missing."""

    values: dict[str, dict[str, dict[int, float | None]]]

    def task(self, role: str, task: str, seeds: Sequence[int] = ()) -> float | None:
        """The mean over seeds: all, or some of them."""
        own = self.values[role][task]
        return mean(own.get(seed) for seed in seeds or own)

    @property
    def tasks(self) -> list[str]:
        """In the plan's order."""
        return list(self.values["HM"])

    @property
    def seeds(self) -> list[int]:
        """In the plan's order."""
        return list(next(iter(self.values["HM"].values())))

    def mean(self, role: str) -> Cell:
        """Over tasks; the error is over seeds."""
        seeds = zip(*(own.values() for own in self.values[role].values()), strict=True)
        return mean_over_seeds([mean(seed) for seed in seeds])


@dataclass(frozen=True)
class Difference:
    """An arm minus another, percentage points, over tasks."""

    by_task: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over tasks."""
        return fmean(self.by_task)

    @property
    def error(self) -> float:
        """Standard error of that mean, over tasks; 0 for one task."""
        return stdev(self.by_task) / math.sqrt(len(self.by_task)) if len(self.by_task) > 1 else 0.0

    def __str__(self) -> str:
        """With the share of tasks on which it is better."""
        better = sum(value > 0 for value in self.by_task)
        return f"{self.mean:+.1f} ± {self.error:.1f} ({better}/{len(self.by_task)})"


def difference(
    one: Scores, other: Scores, role: str, seeds: Sequence[int] = (), without: Sequence[str] = ()
) -> Difference | None:
    """Paired by task, of the means over seeds (all, or some); None where a task is missing.

    Args:
        without: tasks to leave out.
    """
    tasks = [task for task in other.tasks if task not in without]
    pairs = [(one.task(role, task, seeds), other.task(role, task, seeds)) for task in tasks]
    known = [a - b for a, b in pairs if a is not None and b is not None]
    return Difference(tuple(known)) if known and len(known) == len(pairs) else None


@dataclass(frozen=True)
class Part:
    """A stage's runs in one setting."""

    stage: Stage
    setting: str
    grid: Grid
    labels: dict[tuple[str, str], str]
    """In the plan, by arm and candidate ('' for none)."""

    @cached_property
    def runs(self) -> dict[tuple[str, str, int], Planned]:
        """By label, task and seed."""
        return {(run.label, run.recipe["data"], run.recipe["seed"]): run for run in self.grid.plan.runs}

    def scores(self, arm: str, candidate: str = "") -> Scores:
        """What an arm scored."""
        own, values = self.labels[arm, candidate], {role: dict[str, dict[int, float | None]]() for role in ROLES}
        for task in map(str, self.grid.distinct("data")):
            for seed in self.stage.seeds:
                run = self.runs.get((own, task, seed))
                base, novel = self.grid.score(run, "base"), self.grid.score(run, "novel")
                for role, value in zip(ROLES, (base, novel, hm(base, novel)), strict=True):
                    values[role].setdefault(task, {})[seed] = value
        return Scores(values)

    def results(self, arm: str = "") -> list[Result]:
        """Of the runs that are there; of one arm, or of all."""
        runs = [run for run in self.grid.plan.runs if not arm or run.label == self.labels[arm, ""]]
        return [result for run in runs if (result := self.grid.results[run.id]) is not None]

    @property
    def failures(self) -> list[str]:
        """Runs that failed, with the reason."""
        return [f"{run.label}, {run.recipe['data']}, seed {run.recipe['seed']}: {why}" for run, why in self.grid.failed]

    @property
    def waiting(self) -> int:
        """Runs that are not over: not done, unless it was their settings that failed and not, say, the disk."""
        return len(self.grid.open) - sum(why.startswith(DIVERGED) for _, why in self.grid.failed)


def extent(part: Part) -> str:
    """How many tasks and which seeds a mean is over."""
    tasks, seeds = len(part.grid.distinct("data")), part.stage.seeds
    return f"{tasks} task{'s' * (tasks != 1)}, seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def folder(out: Path, stage: Stage) -> Path:
    """Of a stage's store: what is chosen from, and what is measured at the end, lie apart."""
    return out / ("tuning" if stage.items == "val" else "test")


def parts(study: Study, stage: Stage, chosen: Chosen, out: Path) -> list[Part]:
    """A stage's runs as they stand now, by setting."""
    found, store = [], Store(folder(out, stage))
    for setting, plan in plans(study, stage, chosen).items():
        grid = Grid.read(plan, store)
        keys = [(arm, c.label if c else "") for arm in stage.arms for c in stage.tried or (None,)]
        found.append(Part(stage, setting, grid, dict(zip(keys, grid.labels, strict=True))))
    return found


Walked = Sequence[tuple[Stage, list[Part] | None]]
"""Every stage with its runs as they stand; None behind a stage that has still to choose."""


def walk(study: Study, out: Path) -> Iterator[tuple[Stage, list[Part] | None]]:
    """What :data:`Walked` has, stage by stage."""
    chosen, known = Chosen(), True
    for stage in study.stages:
        found = parts(study, stage, chosen, out) if known else None
        yield stage, found
        if found is not None and stage.choose != "none":
            known = not any(part.waiting for part in found)
            if known:
                choose(found, chosen)


def choose(found: Sequence[Part], chosen: Chosen) -> None:
    """Add what a finished stage chooses. Raises UserError where no candidate was trained to its end."""
    stage = found[0].stage
    if stage.choose == "together":
        cells = [(part, arm) for part in found for arm in stage.arms]
        chosen.together = best(stage, cells).over(chosen.together)
        return
    for part in found:
        for arm in stage.arms:
            chosen.add(part.setting, arm, best(stage, [(part, arm)]))


def best(stage: Stage, cells: Sequence[tuple[Part, str]]) -> Candidate:
    """The candidate with the highest HM, mean over arms, settings, tasks and seeds; or the first, if that is close.

    One that diverged is out.
    """
    ranked = ranking(stage, cells)
    if not ranked:
        raise UserError(f"stage {stage.name}: no candidate was trained to its end", remedy="study.py list says why")
    usual = next((value for candidate, value in ranked if candidate == stage.tried[0]), -math.inf)
    return stage.tried[0] if ranked[0][1] - usual < CLOSE else ranked[0][0]


def ranking(stage: Stage, cells: Sequence[tuple[Part, str]]) -> list[tuple[Candidate, float]]:
    """Candidates with their HM, the best first; those that diverged on a task are left out."""
    found = []
    for candidate in stage.tried:
        value = mean(part.scores(arm, candidate.label).mean("HM").mean for part, arm in cells)
        if value is not None:
            found.append((candidate, value))
    return sorted(found, key=lambda pair: -round(pair[1], 9))
