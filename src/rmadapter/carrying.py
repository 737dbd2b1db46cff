"""A run folder becomes a run of another backbone.

A carried run is a run like any other: ``run.json`` (its method is ``transmiter``), ``task.json`` with the split of the
run that it came from, ``shots.json``, the adapter; and ``transfer.json``, which says where it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmadapter import adapter, provenance
from rmadapter.backbones import Backbone, load_backbone
from rmadapter.data.task import Task
from rmadapter.files import new_folder, write_json, write_text
from rmadapter.method import Method
from rmadapter.recipe import Recipe, resolve
from rmadapter.run import CARRIED, RUN, TASK, Record, cut, device_of, read_run, task_of
from rmadapter.solve import frozen_features
from rmadapter.train import SHOTS, STEPS
from rmadapter.transfer import Carried, Look, Mixture, added_flops, carry


@dataclass(frozen=True)
class Transferred:
    """What ``transfer_run`` did."""

    recipe: Recipe
    """Of the new run."""
    teacher: Method
    carried: Carried
    images: int
    """That were looked at."""
    flops: dict[str, int]
    """Operations that an image costs at inference beside the target's own: of the net (transmiter), of EFT instead."""


def transfer_run(
    folder: Path,
    to: str,
    out: Path,
    *,
    pretrained: str | None = "default",
    data: str | None = None,
    plus: bool = False,
    method: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    device: str = "auto",
    show_progress: bool = True,
) -> Transferred:
    """Carry a run over to another backbone, as a new run.

    Args:
        folder: the teacher's run.
        to, pretrained: the target, as ``load_backbone`` takes it.
        out: new or empty, or what a transfer left that was killed while it wrote.
        data: another task, whose training images are looked at and whose classes the new run has; or the place where
            the run's own data are now. None: the run's own.
        plus: then train on the labels of these images (TransMiter+).
        method, train: changes to TransMiter's settings, and to those of the supervised step.

    Raises:
        UserError: for a folder, data, classes or settings that do not fit, before the new run is written.
    """
    source = read_run(folder).recipe
    task, own = task_of(folder, data)
    kept = {"shots", "seed", "split_seed", "skip_broken", "template", *({"test_on"} if own else ())}
    changes = {
        **source.model_dump(include=kept),
        "data": data or source.data,
        "classes": source.classes if own else "all",
        "backbone": to,
        "pretrained": pretrained,
        "method": {**(method or {}), "name": "transmiter"},
        "train": dict(train or {}),
    }
    recipe, device = resolve(None, changes), device_of(device)
    new_folder(out, resume=(out / CARRIED).exists() and not adapter.is_whole(out))
    teacher = adapter.load(folder, device=device)
    target = load_backbone(to, pretrained, device=device)
    carried, learned = carry_to(out, recipe, task, (folder, teacher), target, plus=plus, show_progress=show_progress)
    flops = {
        "transmiter": added_flops(carried.method),
        "eft": Mixture("eft", target, teacher).flops(carried.method.classes, task.template),
    }
    return Transferred(recipe, teacher, carried, len(learned.train), flops)


def carry_to(
    out: Path,
    recipe: Recipe,
    task: Task,
    teacher: tuple[Path, Method],
    target: Backbone,
    *,
    plus: bool,
    look: Look = frozen_features,
    show_progress: bool = False,
) -> tuple[Carried, Task]:
    """Carry over by the new run's recipe, and write the new run into a folder.

    Args:
        task: the whole of it.
        teacher: its run's folder, and the method.
        plus, look: as in ``transfer.carry``.

    Returns:
        What was carried over, and the task cut to what was looked at.
    """
    learned = cut(task, recipe.classes).shots(recipe.shots, recipe.seed)
    carried = carry(
        teacher[1],
        target,
        learned,
        task.classes,
        seed=recipe.seed,
        plus=recipe.train if plus else None,
        look=look,
        show_progress=show_progress,
        **recipe.method_settings,
    )
    _write(out, recipe, carried, task, learned, {"plus": plus, **_about(*teacher)})
    return carried, learned


def _about(folder: Path, teacher: Method) -> dict[str, Any]:
    """What a run was carried over from."""
    with (folder / adapter.TENSORS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    identity = teacher.backbone.identity()
    return {
        "run": str(folder.resolve()),
        "method": teacher.name,
        "settings": teacher.settings.plain(),
        "seed": teacher.seed,
        "classes": teacher.classes,
        "adapter_sha256": sha256,
        "backbone": {key: identity[key] for key in ("name", "pretrained", "sha256")},
    }


def _write(out: Path, recipe: Recipe, carried: Carried, task: Task, learned: Task, about: Mapping[str, Any]) -> None:
    """The new run's files, the adapter last: without it the run is not finished, and is carried over again."""
    seconds = round(sum(carried.seconds.values()), 3)
    fit = {
        "steps": carried.steps,
        "seconds": seconds,
        "images_per_second": len(learned.train) / seconds,
        "terms": carried.terms,
        "parts": carried.seconds,
        "flops_added": added_flops(carried.method),
    }
    machine = provenance.machine(str(carried.method.backbone.device))
    record = Record(recipe=recipe, versions=provenance.versions(), machine=machine, fit=fit)
    about = {**about, "images": len(learned.train), "seconds": carried.seconds, "terms": carried.terms}
    write_json(out / CARRIED, about)  # first, so that nothing takes the rest for a run to go on with by training
    write_json(out / RUN, record.plain())
    write_json(out / TASK, task.manifest(sizes=True).plain())
    write_json(out / SHOTS, learned.manifest().plain())
    write_text(out / STEPS, json.dumps(carried.terms) + "\n")
    adapter.save(carried.method, out)
