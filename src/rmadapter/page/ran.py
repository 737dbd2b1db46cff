"""What was run, so that it can be run again: settings, versions, machines, and every run that is not finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rmadapter.page import sheets
from rmadapter.page.sheets import Sheet
from rmadapter.tables import Grid

PLACES = ("data", "shots", "seed", "train.seed", "classes")
"""Keys of a recipe that are the grid's, not a method's."""


@dataclass(frozen=True)
class Failure:
    """A run that is not finished."""

    where: str
    state: str
    error: str
    """As recorded, with a bug's traceback; empty: there is none."""


@dataclass(frozen=True)
class Ran:
    """What was run, so that it can be run again."""

    facts: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    """Settings that all runs have in common."""
    own: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """By method: the others."""
    machines: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]
    """Number of results, and the versions and the machine that they were computed with."""
    failures: tuple[Failure, ...]
    runs: Sheet


def ran(grid: Grid, names: Mapping[str, str]) -> Ran:
    """All of it. ``names``: of tasks, short."""
    own = {label: _settings(grid, label, names) for label in grid.labels}
    keys = list(dict.fromkeys(key for settings in own.values() for key in settings))
    shared = {
        key: next(iter(own.values()))[key] for key in keys if len({settings.get(key) for settings in own.values()}) == 1
    }
    failed = {run.id for run, _ in grid.failed}
    failures = []
    for run in grid.open:
        result = grid.results[run.id]
        error = (result.error or "") if result and run.id in failed else ""
        where = f"{sheets.where(run, names)} ({run.id})"
        failures.append(Failure(where, "failed" if error else "not computed", error.strip()))
    return Ran(
        facts=_facts(grid),
        shared=tuple(shared.items()),
        own=tuple(
            (label, tuple((k, v) for k, v in settings.items() if k not in shared)) for label, settings in own.items()
        ),
        machines=_machines(grid),
        failures=tuple(failures),
        runs=sheets.runs(grid, names),
    )


def _settings(grid: Grid, label: str, names: Mapping[str, str]) -> dict[str, str]:
    """Of all runs of a label; what a recipe has otherwise for some data or shots stands behind what most runs have."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in grid.runs(label=label):
        data = str(run.recipe["data"])
        place = names.get(data, data) if len(grid.distinct("shots")) == 1 else f"{run.recipe['shots']} shots, {data}"
        for key, value in _flat(run.recipe).items():
            if key not in PLACES:
                found.setdefault(key, {}).setdefault(value, []).append(place)
    said = {}
    for key, places in found.items():
        usual, *others = sorted(places, key=lambda value: -len(places[value]))
        more = (f"{value} ({', '.join(dict.fromkeys(places[value]))})" for value in others)
        said[key] = "; ".join([usual, *more])
    return said


def _facts(grid: Grid) -> tuple[tuple[str, str], ...]:
    trained = [str(data) for data in grid.distinct("data")]
    tested = list(dict.fromkeys(want.data for run in grid.plan.runs for want in run.wanted))
    weights = list(dict.fromkeys(run.backbone for run in grid.plan.runs))
    asked = datetime.fromtimestamp(grid.plan.asked / 1e9, UTC)
    facts = [("trained on", ", ".join(trained))]
    if tested != trained:
        facts.append(("tested on", ", ".join(tested)))
    facts += [
        ("shots", ", ".join(map(str, grid.distinct("shots")))),
        ("seeds", ", ".join(map(str, grid.distinct("seed")))),
        ("weights, sha256", ", ".join(f"{sha[:16]}…" for sha in weights)),
    ]
    if grid.plan.asked:
        facts.append(("asked for last", f"{asked:%Y-%m-%d %H:%M} UTC"))
    if grid.plan.superseded:
        facts.append(("left out", f"{counted(grid.plan.superseded, 'run')} of older plans, for newer runs of the same"))
    for data, broken in grid.plan.skipped.items():
        if broken:
            facts.append((f"unreadable in {data}", f"{counted(len(broken), 'image')}, left out"))
    return tuple(facts)


def _machines(grid: Grid) -> tuple[tuple[int, tuple[tuple[str, str], ...]], ...]:
    counted: dict[tuple[tuple[str, str], ...], int] = {}
    for result in grid.results.values():
        if result is not None and result.versions:
            about = {**result.versions, **result.machine, "commit": result.commit or "not from a checkout"}
            key = tuple((name, str(value)) for name, value in about.items())
            counted[key] = counted.get(key, 0) + 1
    return tuple((number, key) for key, number in counted.items())


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Settings as text, those of a table with its name before them; a teacher is its method, as it has a row itself."""
    found: dict[str, str] = {}
    for key, value in content.items():
        if key == "teacher":
            found[above + key] = value["method"]
        elif above == "transfer." and key == "from":  # the id of one task's and seed's
            continue
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{above}{'method' if key == 'method_settings' else key}.")
        else:
            found[above + key] = value if isinstance(value, str) else _said(value)
    return found


def _said(value: object) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def counted(number: int, what: str) -> str:
    """3 tasks, 1 task."""
    return f"{number} {what}{'s' * (number != 1)}"
