"""Sweeps: the runs of a plan, each once, by as many processes as wanted, none lost when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from rmadapter import adapter, allocator, protocols, provenance
from rmadapter.arms import Arm
from rmadapter.data.task import Task
from rmadapter.errors import DataError, SettingError, UserError
from rmadapter.kit import Kit
from rmadapter.methods import method_class
from rmadapter.recipe import Recipe, resolve
from rmadapter.store import Levels, Plan, Planned, Result, Scored, Store, Wanted, decides, is_done, missing, run_id

if TYPE_CHECKING:
    from rmadapter.calibration import Bins

POLL = 0.5
"""Seconds between two looks at what other processes do."""
SECONDS = ("setup", "train", "evaluate")
"""What a run's time is spent on."""


def plan(
    protocol: str,
    arms: Sequence[Arm],
    *,
    data: Sequence[str] = ("pictograms",),
    source: str | None = None,
    seeds: Sequence[int] = (1,),
    shots: Sequence[int] = (),
    common: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Plan:
    """The grid of a protocol: every arm, task, number of shots and seed, seed by seed.

    Args:
        protocol, data, source, shots: as in ``protocols.legs``.
        common: top-level recipe keys that all runs share (``backbone``, ``split_seed``, …).

    Raises:
        SettingError, DataError, BackboneError: whatever cannot work, before anything is computed.
    """
    if not seeds:
        raise SettingError("no seeds are named", allowed="whole numbers from 0")
    if protocols.protocol(protocol).two_backbones:
        raise SettingError(f"{protocol} has two backbones", remedy=f"rmadapter bench {protocol} --to BACKBONE")
    kit, runs = Kit(device), []
    data = tidy(data)
    source = None if source is None else PurePath(source).as_posix()
    for seed in seeds:
        for leg in protocols.legs(protocol, data, source, shots):
            for arm in arms:
                recipe = resolve(None, {**(common or {}), **arm.changes, **where(leg, seed)}, protocol)
                label = " ".join([arm.label, *unusual(protocol, recipe)])
                runs.append(planned_run(label, recipe, answerable(leg, recipe, kit), kit))
    return whole(protocol, runs, kit)


def whole(protocol: str, runs: Sequence[Planned], kit: Kit) -> Plan:
    """A plan of runs, each of them once, with what was left out of their data."""
    skipped = {name: tuple(broken) for name, broken in kit.skipped.items()}
    return Plan(protocol=protocol, runs=tuple({run.id + run.label: run for run in runs}.values()), skipped=skipped)


def where(leg: protocols.Leg, seed: int) -> dict[str, Any]:
    """Keys of a recipe that are the grid's, not an arm's."""
    return {"data": leg.data, "classes": leg.classes, "shots": leg.shots, "seed": seed}


def tidy(data: Sequence[str]) -> list[str]:
    """Names as tables have them: ./A/ is A."""
    return [PurePath(name).as_posix() for name in data]


def answerable(leg: protocols.Leg, recipe: Recipe, kit: Kit) -> protocols.Leg:
    """The leg with what its method can say something about: one that is bound to its classes knows no others."""
    if not method_class(recipe.method).class_bound:
        return leg
    known = set(kit.part(leg.data, leg.classes, recipe).classes)
    asked = (e for e in leg.evaluations if known.issuperset(kit.part(e.data, e.classes, recipe).classes))
    return replace(leg, evaluations=tuple(asked))


def unusual(protocol: str, recipe: Recipe) -> list[str]:
    """What a label must say so that sweeps into one folder do not mix."""
    found = {
        key: getattr(recipe, key)
        for key in ("backbone", "pretrained", "template", "split_seed", "skip_broken", "test_on")
    }
    known = protocols.protocol(protocol)
    if (recipe.shots,) != known.default_shots[:1] and known.kind != "curve":
        found["shots"] = recipe.shots
    usual = {key: field.default for key, field in Recipe.model_fields.items()}
    return [f"{key}={value}" for key, value in found.items() if value != usual[key] or key == "shots"]


def planned_run(label: str, recipe: Recipe, leg: protocols.Leg, kit: Kit) -> Planned:
    """A recipe on a leg of its protocol, with the hashes of all that decides it.

    Raises:
        DataError: for a task without images to score.
    """
    for e in leg.evaluations:
        if not len(kit.part(e.data, e.classes, recipe).test):
            raise DataError(
                f"{e.data} has no {recipe.test_on} images to score ({e.classes} classes)",
                remedy="give it some, or leave it out of --data",
            )
    wanted = tuple(
        Wanted(role=e.role, data=e.data, classes=e.classes, split=kit.tested(e.data, e.classes, recipe))
        for e in leg.evaluations
    )
    backbone, split = kit.weights(recipe), kit.learned(recipe)
    run = run_id(recipe.plain(), backbone, split)
    return Planned(id=run, label=label, recipe=recipe.plain(), backbone=backbone, split=split, wanted=wanted)


def run(
    plan: Plan,
    folder: Path,
    *,
    jobs: int = 1,
    device: str = "cpu",
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Compute what a plan wants and the folder's store has not.

    Finished runs are not repeated; one that failed is recorded with its error, does not stop the others, and is tried
    again by the next call. Other processes may work on the same folder.

    Args:
        jobs: processes; each gets its share of the threads.
        watch: called after every run (one job), or twice a second.
    """
    store = Store(folder)
    store.create()
    store.write_plan(plan)
    for data, broken in plan.skipped.items():
        if broken:
            warnings.warn(f"left out of {data}: {len(broken)} unreadable, see {store.skipped(data)}", stacklevel=2)
    sweep = f"{time.time_ns()}-{os.getpid()}"
    if jobs == 1:
        work(plan, folder, Kit(device, skipped=plan.skipped), sweep, watch)
    else:
        _side_by_side(plan, folder, jobs, device, sweep, watch)


def _side_by_side(plan: Plan, folder: Path, jobs: int, device: str, sweep: str, watch: Callable[[], None]) -> None:
    """The same by several processes, which end with this one."""
    import torch

    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    threads = max(1, torch.get_num_threads() // jobs)
    workers = [
        context.Process(target=_worker, args=(plan.plain(), folder, device, sweep, jobs, threads)) for _ in range(jobs)
    ]  # no daemons: these may not start the processes that --train.workers asks for
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            wait([worker.sentinel for worker in workers if worker.is_alive()], POLL)
            watch()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
    if any(worker.exitcode for worker in workers):
        raise UserError(
            "a worker of the sweep ended early", remedy="look at the messages above; the same command goes on"
        )


def _worker(plan: dict[str, Any], folder: Path, device: str, sweep: str, jobs: int, threads: int) -> None:
    """A process of its own; it ends when its parent does, also where that was killed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes to all; the parent ends this one
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: wait([parent.sentinel]) and os._exit(1), daemon=True).start()
    torch.set_num_threads(threads)
    allocator.keep_freed()
    wanted = Plan.parse(plan, "plan")
    try:
        work(wanted, folder, Kit(device, jobs, wanted.skipped), sweep, lambda: None)
    except UserError as error:
        sys.exit(f"error: {error}")


def work(plan: Plan, folder: Path, kit: Kit, sweep: str, watch: Callable[[], None]) -> None:
    """Compute run after run until all are done or have failed; runs that others hold are waited for."""
    store, todo = Store(folder), list(plan.runs)
    while todo:
        held = []
        for planned in todo:
            if _is_over(store.read(planned.id), planned, sweep):
                continue
            with store.lock(planned.id) as mine:
                if not mine:
                    held.append(planned)
                elif not _is_over(store.read(planned.id), planned, sweep):
                    compute(planned, store, kit, sweep)
                    watch()
        if len(held) == len(todo):
            time.sleep(POLL)
        todo = held


def _is_over(result: Result | None, planned: Planned, sweep: str) -> bool:
    failed_now = result is not None and result.error is not None and result.sweep == sweep
    return failed_now or is_done(result, planned)


def compute(planned: Planned, store: Store, kit: Kit, sweep: str) -> None:
    """Bring a run's result up to what is wanted of it; a failure is recorded in it, and must not stop the others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # notes for one run's user; its folder has them too
            _compute(planned, store, kit, sweep)
        return
    except UserError as error:
        said = str(error)
    except Exception:  # noqa: BLE001 (whatever it is, the other runs go on, and the record has the traceback)
        said = traceback.format_exc()
    store.write(_known(planned, store).model_copy(update={"error": said, "sweep": sweep}))


def _known(planned: Planned, store: Store) -> Result:
    empty = Result(id=planned.id, recipe=planned.recipe, backbone=planned.backbone, split=planned.split)
    return store.read(planned.id) or empty


def _compute(planned: Planned, store: Store, kit: Kit, sweep: str) -> None:
    """Train, unless that was done, and score what is missing; every score is written when it is there."""
    from rmadapter import ways
    from rmadapter.run import read_run

    begun = time.perf_counter()
    provenance.reset_peak_memory(kit.device)
    recipe, folder = ways.own_recipe(planned), store.run_folder(planned.id)
    backbone = kit.backbone(recipe)
    kit.task(recipe.data, recipe)  # read here, and kept, so that it is counted as set-up
    ready = time.perf_counter()
    if ways.KEY in planned.recipe:
        method, fit = ways.made(planned, store, kit)
    else:
        learn(recipe, folder, kit)
        method, fit = adapter.load(folder, backbone=backbone), read_run(folder).fit
        method.temperature = 1.0  # somebody may have fitted one since, and scores of one sweep are all without
    result = _known(planned, store).model_copy(
        update={
            "sweep": sweep,
            "error": None,
            "trained_parameters": method.trained(),
            "training": fit,
            "versions": provenance.versions(),
            "machine": provenance.machine(str(backbone.device)),
            "commit": provenance.commit(),
        }
    )
    spent = {"setup": ready - begun, "train": time.perf_counter() - ready}
    for want in missing(result, planned):
        started = time.perf_counter()
        scores = {**result.scores, want.key: _score(method, kit.part(want.data, want.classes, recipe), want, kit)}
        spent["evaluate"] = time.perf_counter() - started
        seconds = {key: round(result.seconds.get(key, 0.0) + spent.pop(key, 0.0), 3) for key in SECONDS}
        peak = provenance.peak_memory(kit.device)
        result = result.model_copy(update={"scores": scores, "seconds": seconds, "peak_memory": peak})
        store.write(result)


def learn(recipe: Recipe, folder: Path, kit: Kit) -> None:
    """Train a run of a sweep, or go on with it, unless that was done."""
    from rmadapter.run import train

    own: dict[str, Any] = {
        "backbone": kit.backbone(recipe),
        "task": kit.task(recipe.data, recipe),
        "shared": kit.shared,
    }
    compared = partial(decides, files=False)  # the folder's name hashes their content, and they may have moved
    train(recipe, folder, resume=True, compared=compared, show_progress=False, device=kit.device, **own)


def _score(method: Any, part: Task, want: Wanted, kit: Kit) -> Scored:
    from rmadapter.evaluation import evaluate
    from rmadapter.transfer import Mixture

    begun = time.perf_counter()
    if isinstance(method, Mixture):
        found = method.scores(part.test, part.template, pixels=kit.pixels)
    else:
        found = evaluate(method.predictor(part.classes, part.template), part.test, pixels=kit.pixels)
    kept = {key: value for key, value in found.summary().items() if key in Scored.model_fields}
    where = {"data": want.data, "split": want.split, "seconds": round(time.perf_counter() - begun, 3)}
    return Scored.parse({**kept, **where, "levels": _levels(found.bins)}, "scores")


def _levels(bins: Bins) -> Levels:
    right = (bins.accuracy * bins.images).round().astype(int)
    confidence = tuple(bins.confidence.round(6).tolist())
    return Levels(images=tuple(bins.images.tolist()), right=tuple(right.tolist()), confidence=confidence)
