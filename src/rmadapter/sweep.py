"""Sweeps: the runs of a plan, each once, by as many processes as wanted, none lost when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rmadapter import adapter, protocols, provenance
from rmadapter.data.task import Task
from rmadapter.errors import SettingError, UserError
from rmadapter.recipe import Recipe, resolve
from rmadapter.store import Plan, Planned, Result, Scored, Store, Wanted, digest, is_done, missing, run_id

POLL = 0.5
"""Seconds between two looks at what other processes do."""


@dataclass(frozen=True)
class Arm:
    """A method with changed settings, under the label that tables show."""

    label: str
    changes: Mapping[str, Any]
    """As ``recipe.resolve`` takes them: top-level keys, and the tables ``method`` and ``train``."""


@dataclass
class Kit:
    """What the runs of a process share: backbones, tasks, and decoded test images within a budget of bytes."""

    device: str
    _backbones: dict[tuple[str, str | None], Any] = field(default_factory=dict)
    _tasks: dict[tuple[str, int, str | None, bool], Task] = field(default_factory=dict)
    _pixels: Any = None

    def backbone(self, recipe: Recipe) -> Any:
        """The recipe's backbone."""
        from rmadapter.backbones import load_backbone

        key = (recipe.backbone, recipe.pretrained)
        if key not in self._backbones:
            self._backbones[key] = load_backbone(*key, device=self.device)
        return self._backbones[key]

    def task(self, data: str, recipe: Recipe) -> Task:
        """A task, split as the recipe says."""
        from rmadapter.run import load_whole_task

        key = (data, recipe.split_seed, recipe.template, recipe.skip_broken)
        if key not in self._tasks:
            self._tasks[key] = load_whole_task(recipe.model_copy(update={"data": data}))
        return self._tasks[key]

    @property
    def pixels(self) -> Any:
        """Decoded images."""
        from rmadapter.data.loader import Pixels

        if self._pixels is None:
            self._pixels = Pixels()
        return self._pixels


def arms(methods: Sequence[str], method: Mapping[str, Any], train: Mapping[str, Any]) -> list[Arm]:
    """A labelled arm a method; settings of methods go to those that have them.

    Raises:
        SettingError: for a setting that none of the methods has.
    """
    from rmadapter.methods import method_class

    has = {name: set(method_class(name).Settings.model_fields) for name in methods}
    for key in method:
        if not any(key in names for names in has.values()):
            raise SettingError(f"none of the methods has a setting {key!r}", got=", ".join(methods))
    made = []
    for name in methods:
        own = {key: value for key, value in method.items() if key in has[name]}
        changed = " ".join(f"{key}={value}" for key, value in {**own, **train}.items())
        made.append(Arm(f"{name} {changed}".strip(), {"method": {"name": name, **own}, "train": dict(train)}))
    return made


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
    kit, runs = Kit(device), []
    for seed in seeds:
        for leg in protocols.legs(protocol, data, source, shots):
            for arm in arms:
                where = {"data": leg.data, "classes": leg.classes, "shots": leg.shots, "seed": seed}
                recipe = resolve(None, {**(common or {}), **arm.changes, **where})
                label = " ".join([arm.label, *_unusual(protocol, recipe)])
                runs.append(_planned(label, recipe, leg, kit))
    return Plan(protocol=protocol, runs=tuple({run.id + run.label: run for run in runs}.values()))


def _unusual(protocol: str, recipe: Recipe) -> list[str]:
    """What a label must say so that sweeps into one folder do not mix."""
    found = {key: getattr(recipe, key) for key in ("backbone", "pretrained", "template", "split_seed", "skip_broken")}
    if (recipe.shots,) != protocols.protocol(protocol).default_shots[:1] and protocol != "few-shot":
        found["shots"] = recipe.shots
    usual = {key: field.default for key, field in Recipe.model_fields.items()}
    return [f"{key}={value}" for key, value in found.items() if value != usual[key] or key == "shots"]


def _planned(label: str, recipe: Recipe, leg: protocols.Leg, kit: Kit) -> Planned:
    from rmadapter.run import cut

    wanted = tuple(
        Wanted(role=e.role, data=e.data, classes=e.classes, split=cut(kit.task(e.data, recipe), e.classes).sha256())
        for e in leg.evaluations
    )
    identity = kit.backbone(recipe).identity()
    backbone = digest({key: identity[key] for key in ("sha256", "shape", "preprocess")})  # wherever it was read from
    split = kit.task(leg.data, recipe).sha256()
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
    sweep = f"{time.time_ns()}-{os.getpid()}"
    if jobs == 1:
        work(plan, folder, device, sweep, watch)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    threads = max(1, (os.cpu_count() or 1) // jobs)
    workers = [
        context.Process(target=_worker, args=(plan.plain(), folder, device, sweep, threads), daemon=True)
        for _ in range(jobs)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            wait([worker.sentinel for worker in workers if worker.is_alive()], POLL)
            watch()
    finally:
        for worker in workers:
            worker.terminate()
    if any(worker.exitcode for worker in workers):
        raise UserError(
            "a worker of the sweep ended early", remedy="look at the messages above; the same command goes on"
        )


def _worker(plan: dict[str, Any], folder: Path, device: str, sweep: str, threads: int) -> None:
    """A process of its own; it ends when its parent does, also where that was killed."""
    import torch

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: wait([parent.sentinel]) and os._exit(1), daemon=True).start()
    torch.set_num_threads(threads)
    work(Plan.parse(plan, "plan"), folder, device, sweep, lambda: None)


def work(plan: Plan, folder: Path, device: str, sweep: str, watch: Callable[[], None]) -> None:
    """Compute run after run until all are done or have failed; runs that others hold are waited for."""
    store, kit, todo = Store(folder), Kit(device), list(plan.runs)
    while todo:
        held = []
        for planned in todo:
            if _is_over(store.read(planned.id), planned, sweep):
                continue
            with store.lock(planned.id) as mine:
                if not mine:
                    held.append(planned)
                elif not _is_over(store.read(planned.id), planned, sweep):
                    store.write(compute(planned, store, kit, sweep))
                    watch()
        if len(held) == len(todo):
            time.sleep(POLL)
        todo = held


def _is_over(result: Result | None, planned: Planned, sweep: str) -> bool:
    failed_now = result is not None and result.error is not None and result.sweep == sweep
    return failed_now or is_done(result, planned)


def compute(planned: Planned, store: Store, kit: Kit, sweep: str) -> Result:
    """A run's result, or its error: a failed run must not stop the others."""
    known = store.read(planned.id)
    empty = Result(id=planned.id, recipe=planned.recipe, backbone=planned.backbone, split=planned.split, sweep=sweep)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # notes for one run's user; its folder has them too
            return _compute(planned, known if known and known.error is None else empty, store, kit, sweep)
    except UserError as error:
        return empty.model_copy(update={"error": str(error)})
    except Exception:  # noqa: BLE001 (whatever it is, the other runs go on, and the record has the traceback)
        return empty.model_copy(update={"error": traceback.format_exc()})


def _compute(planned: Planned, known: Result, store: Store, kit: Kit, sweep: str) -> Result:
    from rmadapter.run import cut, read_run, train

    begun = time.perf_counter()
    provenance.reset_peak_memory(kit.device)
    recipe, folder = Recipe.parse(planned.recipe, "recipe"), store.run_folder(planned.id)
    backbone, task = kit.backbone(recipe), kit.task(str(planned.recipe["data"]), recipe)
    ready = time.perf_counter()
    train(recipe, folder, resume=True, backbone=backbone, task=task, device=kit.device, show_progress=False)
    method = adapter.load(folder, backbone=backbone)
    trained = time.perf_counter()
    scores = dict(known.scores)
    for want in missing(known, planned):
        part = cut(kit.task(want.data, recipe), want.classes)
        scores[want.key] = _score(method, part, want, kit)
    seconds = {"setup": ready - begun, "train": trained - ready, "evaluate": time.perf_counter() - trained}
    return known.model_copy(
        update={
            "scores": scores,
            "sweep": sweep,
            "trained_parameters": method.trained(),
            "training": read_run(folder).fit,
            "seconds": {key: round(value + known.seconds.get(key, 0.0), 3) for key, value in seconds.items()},
            "peak_memory": provenance.peak_memory(kit.device),
            "versions": provenance.versions(),
            "machine": provenance.machine(str(backbone.device)),
            "commit": provenance.commit(),
        }
    )


def _score(method: Any, part: Task, want: Wanted, kit: Kit) -> Scored:
    from rmadapter.evaluation import evaluate

    begun = time.perf_counter()
    found = evaluate(method.predictor(part.classes, part.template), part.test, pixels=kit.pixels)
    kept = {key: value for key, value in found.summary().items() if key in Scored.model_fields}
    return Scored.parse({**kept, "split": want.split, "seconds": round(time.perf_counter() - begun, 3)}, "scores")
