"""The store of a sweep: one JSON file a run, written atomically, and one a plan. Reports read it and nothing else.

FOLDER/plans/NAME.json      which runs a protocol wants, under which labels
FOLDER/results/ID.json      one run: its recipe, its scores, what it was computed with; or its error
FOLDER/runs/ID/             the adapter and its log
FOLDER/skipped/TASK.csv     images of a task that were left out, since they cannot be read
FOLDER/locks/ID             held by the process that computes the run; the system frees it when the process dies
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rmadapter.data.check import Broken, table
from rmadapter.errors import DataError
from rmadapter.files import locked, write_json, write_text
from rmadapter.methods import method_class
from rmadapter.protocols import PROTOCOLS, Classes
from rmadapter.settings import Settings

FORMAT = 2
"""Of a result; a change of what results mean changes every id."""


class Levels(Settings):
    """Test items by how sure the predictor was of them: bins of confidence, of equal width from 0 to 1."""

    images: tuple[int, ...]
    """In each bin."""
    right: tuple[int, ...]
    """Of these."""
    confidence: tuple[float, ...]
    """Their mean confidence, 0 to 1; 0 in an empty bin."""


class Scored(Settings):
    """Scores on one task's classes."""

    data: str
    """The task's name or folder when it was scored."""
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
    mean_confidence: float | None = None
    """Of the predicted classes, percent; above the accuracy: too sure. None: the result is older than this field."""
    levels: Levels | None = None
    """What a reliability diagram shows. None: the result is older than this field."""


class Result(Settings):
    """``results/ID.json``."""

    format: Literal[2] = 2
    """Of this file; a sweep of another format needs a folder of its own."""
    id: str
    """Hash of the recipe, the backbone's weights and what is learned from."""
    recipe: dict[str, Any]
    """Every setting."""
    backbone: str
    """Hash of its weights, shape and preprocessing."""
    split: str
    """Hash of the training task."""
    scores: dict[str, Scored] = {}
    """By the test task's hash and classes; see ``Wanted.key``."""
    error: str | None = None
    """Why the last attempt failed, which costs no score; none: it did not."""
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

    @property
    def reason(self) -> str:
        """The error in one line: a message's first, a traceback's last."""
        lines = (self.error or "").strip().splitlines() or [""]
        return lines[-1] if "Traceback" in lines[0] else lines[0]

    def score(self, wanted: Wanted) -> Scored | None:
        """What a plan wants, if it is there."""
        return self.scores.get(wanted.key)


class Wanted(Settings):
    """A score that a plan wants of a run."""

    role: str
    """base, novel, all, source or target."""
    data: str
    """The task's name or folder."""
    classes: Classes
    """Chosen among."""
    split: str
    """Hash of the test task: prompt, class names, and the content of its images."""

    @property
    def key(self) -> str:
        """Where the score stands in a result: not under a path, which may be written in several ways."""
        return f"{self.split[:16]} {self.classes}"


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

    @property
    def cell(self) -> tuple[object, ...]:
        """Which number of a table it is for."""
        return self.label, *(self.recipe[key] for key in ("data", "shots", "seed"))

    def also(self, older: Planned) -> Planned:
        """The same run, with what an older plan wants besides."""
        taken = {name for want in self.wanted for name in _names(want)}
        more = [want for want in older.wanted if not taken & _names(want)]
        return self.model_copy(update={"wanted": (*self.wanted, *more)})


class Plan(Settings):
    """``plans/NAME.json``: the grid of a sweep."""

    protocol: str
    """Its name."""
    runs: tuple[Planned, ...]
    """In the order in which they are computed."""
    skipped: dict[str, tuple[Broken, ...]] = {}
    """By task, images that are left out since they cannot be read, where that was asked for."""
    asked: int = 0
    """When it was asked for last, in nanoseconds since 1970: of two plans the later one holds."""
    superseded: int = 0
    """Older runs that are left out for newer ones, where several plans were made one."""


def digest(content: Any) -> str:
    """Hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def decides(recipe: Mapping[str, Any], files: bool = True) -> dict[str, Any]:
    """What of a recipe decides a run, beside the backbone's weights and the data: no place, no number of workers.

    Args:
        files: with the content of files that settings name; without, these settings are left out and nothing is read.
    """
    kept = {key: value for key, value in recipe.items() if key not in ("data", "backbone", "pretrained")}
    method = method_class(recipe["method"]).Settings.parse(recipe["method_settings"], f"method {recipe['method']}")
    train = {key: value for key, value in recipe["train"].items() if key != "workers"}
    settings = method.decisive() if files else method.model_dump(mode="json", exclude={*method.input_files})
    return {**kept, "method_settings": settings, "train": train}


def run_id(recipe: Mapping[str, Any], backbone: str, split: str) -> str:
    """What a run's result is called: the hash of all that decides it; hashes stand for the backbone and the data."""
    return digest([FORMAT, decides(recipe), backbone, split])[:16]


class Store:
    """A sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Make the folders. Raises DataError where the folder holds something else."""
        try:
            if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "plans").is_dir():
                raise DataError(f"{self.folder} holds something else than a sweep", remedy="name another folder")
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
        """Note what a sweep wants, and what was left out; the same plan again is the newest once more."""
        content = plan.model_copy(update={"asked": time.time_ns()}).plain()
        name = f"{plan.protocol}-{digest(content['runs'])[:8]}.json"
        write_json(self.folder / "plans" / name, content)
        for data, broken in plan.skipped.items():
            self.skipped(data).parent.mkdir(exist_ok=True)
            write_text(self.skipped(data), table(broken))

    def skipped(self, data: str) -> Path:
        """The list of a task's images that were left out."""
        return self.folder / "skipped" / f"{Path(data).name}-{digest(data)[:8]}.csv"

    def plans(self) -> list[Plan]:
        """Every plan, those of a protocol as one, so that sweeps into one folder make one table; see ``merge``.

        Protocols are in their usual order (``PROTOCOLS``).

        Raises:
            DataError: for a folder without plans.
        """
        files = sorted((self.folder / "plans").glob("*.json"))
        if not files:
            raise DataError(f"{self.folder} holds no sweep", remedy="name a folder that rmadapter bench wrote")
        by_protocol: dict[str, list[Plan]] = {}
        for plan in sorted((Plan.read(file, DataError) for file in files), key=lambda plan: plan.asked):
            by_protocol.setdefault(plan.protocol, []).append(plan)
        usual = [*PROTOCOLS, *by_protocol]
        return [merge(by_protocol[name]) for name in sorted(by_protocol, key=usual.index)]

    @contextmanager
    def lock(self, run: str) -> Iterator[bool]:
        """Hold a run; yields False when another process does. Raises UserError where no lock can be made."""
        with locked(self.folder / "locks" / run, wait=False) as mine:
            yield mine


def merge(plans: Sequence[Plan]) -> Plan:
    """Plans of one protocol as one, given from the oldest to the newest.

    A run that several plans have wants what any of them does. Where runs of the same method, data, shots and seed
    differ, since a default, the data or the weights have changed in between, the newest plan's holds.
    """
    kept: dict[tuple[str, str], Planned] = {}
    cells: set[tuple[object, ...]] = set()
    for plan in reversed(plans):
        for run in plan.runs:
            name = (run.id, run.label)
            if name in kept:
                kept[name] = kept[name].also(run)
            elif run.cell not in cells:
                kept[name] = run
                cells.add(run.cell)
    names = dict.fromkeys((run.id, run.label) for plan in plans for run in plan.runs)
    runs = tuple(kept[name] for name in names if name in kept)
    return plans[-1].model_copy(update={"runs": runs, "superseded": len(names) - len(kept)})


def is_done(result: Result | None, planned: Planned) -> bool:
    """Whether a result has everything that a plan wants of it, whatever an attempt to add to it came to."""
    return not missing(result, planned)


def missing(result: Result | None, planned: Planned) -> list[Wanted]:
    """What a plan wants and a result has not, each once."""
    wanted = {want.key: want for want in planned.wanted if result is None or result.score(want) is None}
    return list(wanted.values())


def _names(wanted: Wanted) -> set[tuple[str, ...]]:
    """What a score may be known by: its test items or where these are."""
    return {(wanted.role, wanted.key), (wanted.role, wanted.data, wanted.classes)}
