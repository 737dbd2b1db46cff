"""The store of a sweep: one JSON file a run, written atomically, and one a plan. Reports read it and nothing else.

FOLDER/plans/NAME.json      which runs a protocol wants, under which labels
FOLDER/results/ID.json      one run: its recipe, its scores, what it was computed with; or its error
FOLDER/runs/ID/             the adapter and its log
FOLDER/locks/ID             held by the process that computes the run; the system frees it when the process dies
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from rmadapter.errors import DataError
from rmadapter.files import write_json
from rmadapter.settings import Settings

FORMAT = 1
"""Of a result; a change of what results mean changes every id."""


class Scored(Settings):
    """Scores on one task's classes."""

    split: str
    """Hash of the test task."""
    accuracy: float
    """Percent."""
    mean_class_accuracy: float
    """Percent."""
    ece: float
    """Expected calibration error, percent."""
    images: int
    """Test items."""
    classes: int
    """Chosen among."""
    seconds: float
    """Of the evaluation."""


class Result(Settings):
    """``results/ID.json``."""

    format: Literal[1] = 1
    """Of this file."""
    id: str
    """Hash of the recipe, the backbone's weights and the split."""
    recipe: dict[str, Any]
    """Every setting."""
    backbone: str
    """Hash of its weights, shape and preprocessing."""
    split: str
    """Hash of the training task."""
    scores: dict[str, Scored] = {}
    """By task and classes, ``pictograms/animals base``."""
    error: str | None = None
    """Why the run failed; none: it did not."""
    sweep: str = ""
    """The call of bench that computed it last."""
    trained_parameters: int | None = None
    """How many the method trains."""
    training: dict[str, Any] | None = None
    """Steps, seconds, images a second, and the mean of each loss over the last epoch."""
    seconds: dict[str, float] = {}
    """Setting up, training, evaluating."""
    peak_memory: float | None = None
    """MiB of the process (the device's where there is one) during this run; none where it cannot be told."""
    versions: dict[str, str] = {}
    """Of Python and the main packages."""
    machine: dict[str, Any] = {}
    """Kind, threads, device."""
    commit: str | None = None
    """Of the checkout that the package runs from."""


class Wanted(Settings):
    """A score that a plan wants of a run."""

    role: str
    """base, novel, all, source or target."""
    data: str
    """The task's name or folder."""
    classes: Literal["base", "novel", "all"]
    """Chosen among."""
    split: str
    """Hash of the test task."""

    @property
    def key(self) -> str:
        """Where the score stands in a result."""
        return f"{self.data} {self.classes}"


class Planned(Settings):
    """A run of a plan."""

    id: str
    """Of its result."""
    label: str
    """The method, with the settings that were changed."""
    recipe: dict[str, Any]
    """Every setting."""
    backbone: str
    """Hash."""
    split: str
    """Hash of the training task."""
    wanted: tuple[Wanted, ...]
    """What is scored."""


class Plan(Settings):
    """``plans/NAME.json``: the grid of a sweep."""

    protocol: str
    """Its name."""
    runs: tuple[Planned, ...]
    """In the order in which they are computed."""


def digest(content: Any) -> str:
    """Hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_id(recipe: Mapping[str, Any], backbone: str, split: str) -> str:
    """What a run's result is called: the hash of all that decides it.

    Paths do not: the backbone's and the split's hashes stand for where they come from. Nor does the number of workers.
    """
    decides = {key: value for key, value in recipe.items() if key not in ("data", "backbone", "pretrained")}
    decides["train"] = {key: value for key, value in recipe["train"].items() if key != "workers"}
    return digest([FORMAT, decides, backbone, split])[:16]


class Store:
    """A sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Make the folders. Raises DataError where the folder holds something else."""
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "plans").is_dir():
            raise DataError(f"{self.folder} holds something else than a sweep", remedy="name another folder")
        try:
            for name in ("plans", "results", "runs", "locks"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot use {self.folder}", got=error.strerror, remedy="name another folder") from error

    def run_folder(self, run: str) -> Path:
        """Of a run's adapter and log."""
        return self.folder / "runs" / run

    def read(self, run: str) -> Result | None:
        """A run's result. Raises DataError, naming the file, when it is damaged."""
        file = self.folder / "results" / f"{run}.json"
        return Result.read(file, DataError) if file.exists() else None

    def write(self, result: Result) -> None:
        """Replace a run's result."""
        write_json(self.folder / "results" / f"{result.id}.json", result.plain())

    def write_plan(self, plan: Plan) -> None:
        """Note what a sweep wants; the same plan again changes nothing."""
        name = f"{plan.protocol}-{digest(plan.plain())[:8]}.json"
        write_json(self.folder / "plans" / name, plan.plain())

    def plans(self) -> list[Plan]:
        """Every plan, those of a protocol as one, so that sweeps into one folder make one table.

        Raises:
            DataError: for a folder without plans.
        """
        files = sorted((self.folder / "plans").glob("*.json"))
        if not files:
            raise DataError(f"{self.folder} holds no sweep", remedy="name a folder that rmadapter bench wrote")
        merged: dict[str, dict[str, Planned]] = {}
        for plan in (Plan.read(file, DataError) for file in files):
            merged.setdefault(plan.protocol, {}).update({run.id + run.label: run for run in plan.runs})
        return [Plan(protocol=name, runs=tuple(runs.values())) for name, runs in merged.items()]

    @contextmanager
    def lock(self, run: str) -> Iterator[bool]:
        """Hold a run; yields False when another process does."""
        lock = FileLock(self.folder / "locks" / run)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def is_done(result: Result | None, planned: Planned) -> bool:
    """Whether a result has everything that a plan wants of it."""
    return result is not None and result.error is None and not missing(result, planned)


def missing(result: Result | None, planned: Planned) -> list[Wanted]:
    """What a plan wants and a result has not; a score on another split of the task's does not count."""
    scores = result.scores if result else {}
    return [want for want in planned.wanted if want.key not in scores or scores[want.key].split != want.split]
