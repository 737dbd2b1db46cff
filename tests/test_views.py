"""Training images that are not augmented go through the frozen blocks once, and nothing changes by it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rmadapter as ra
from rmadapter import views
from rmadapter.backbones import Backbone
from rmadapter.backbones.clip import ImageTower
from rmadapter.data import Task
from rmadapter.data.loader import Augment, order
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.views import Seen, SharedRows, Views


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images go into the tower at a time."""
    found: list[int] = []
    rows = ImageTower.rows

    def spy(tower: ImageTower, inputs: Tensor) -> Tensor:
        found.append(len(inputs))
        return rows(tower, inputs)

    monkeypatch.setattr(ImageTower, "rows", spy)
    return found


def seen(
    method: Method,
    task: Task,
    augment: Augment = "none",
    again: bool = True,
    workers: int = 0,
    shared: SharedRows | None = None,
) -> list[Seen]:
    split = task.train
    plan = [(epoch, batch) for epoch in range(2) for batch in order(len(split), 5, 1, epoch)]
    return list(Views(method, split, augment, 1, nullcontext, workers, shared).batches(plan, 5, again))


def equal(one: list[Seen], other: list[Seen], limit: float) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.labels, b.labels) and a.rows.at == b.rows.at
        for x, y in ((a.rows.x, b.rows.x), (a.rows.past, b.rows.past), (a.teacher, b.teacher)):
            assert (x is None) == (y is None)
            assert x is None or (x - y).abs().max() <= limit


@pytest.mark.parametrize("name", ["rmadapter", "coop", "coprompt"])
def test_rows_that_are_kept_are_those_of_every_step(
    name: str, few: Task, pictoclip: Backbone, images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, task = method_class(name)(pictoclip), few.shots(4, seed=1)
    assert len(task.train) == 24
    once = seen(method, task)
    assert images == [5, 5, 5, 5, 4] and len(once) == 8
    assert (once[0].rows.past is not None) == (name == "rmadapter") and (once[0].teacher is None) == (name == "coop")
    equal(once, seen(method, task, workers=2), 0.0)
    images.clear()
    monkeypatch.setattr(views, "MEMORY", 100)
    every = seen(method, task)
    assert sum(images) == 40 + 5  # it learns that they do not fit from a first batch
    equal(once, every, 1e-4)
    wanted = [[task.train.labels[i] for i in batch] for epoch in range(2) for batch in order(24, 5, 1, epoch)]
    assert [batch.labels.tolist() for batch in once] == wanted


@pytest.mark.parametrize(("augment", "again"), [("crop_flip", True), ("none", False)])
def test_new_views_and_single_epochs_keep_nothing(
    augment: Augment, again: bool, few: Task, pictoclip: Backbone, images: list[int]
) -> None:
    seen(method_class("mma")(pictoclip), few.shots(4, seed=1), augment, again)
    assert images == [5] * 8


def test_training_is_the_same_either_way(
    few: Task, pictoclip: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Any]] = []
    for memory in (views.MEMORY, 0):
        monkeypatch.setattr(views, "MEMORY", memory)
        method = ra.RMAdapter(pictoclip)
        ra.fit(method, few.shots(4, seed=1), show_progress=False, epochs=3, batch_size=8, augment="none")
        states.append(method.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("name", ["rmadapter", "coop", "coprompt"])
def test_runs_that_draw_the_same_share_it(name: str, few: Task, pictoclip: Backbone, images: list[int]) -> None:
    """With a budget for all rows and with a small one: the same bits, and no image drawn twice that was kept."""
    method, task = method_class(name)(pictoclip), few.shots(4, seed=1)
    alone, count = seen(method, task, "crop_flip"), len(images)
    shared = SharedRows()
    equal(alone, seen(method, task, "crop_flip", shared=shared), 0.0)
    images.clear()
    equal(alone, seen(method, task, "crop_flip", workers=1, shared=shared), 0.0)
    assert images == []
    small = SharedRows(sum(x.nbytes for x in (alone[0].rows.x, alone[0].rows.past, alone[0].teacher) if x is not None))
    for _ in range(2):
        images.clear()
        equal(alone, seen(method, task, "crop_flip", shared=small), 0.0)
    assert 0 < len(images) < count


def test_without_augmentation_a_run_keeps_its_own(few: Task, pictoclip: Backbone, images: list[int]) -> None:
    method, task, shared = method_class("mma")(pictoclip), few.shots(4, seed=1), SharedRows()
    for _ in range(2):
        images.clear()
        seen(method, task, shared=shared)
        assert images == [5, 5, 5, 5, 4]


def test_methods_that_begin_elsewhere_share_no_rows(few: Task, pictoclip: Backbone, images: list[int]) -> None:
    task, shared = few.shots(4, seed=1), SharedRows()
    for name in ("rmadapter", "mma", "coop", "kgcoop", "maple"):
        method = method_class(name)(pictoclip)
        alone = seen(method, task, "crop_flip")
        images.clear()
        equal(alone, seen(method, task, "crop_flip", shared=shared), 0.0)
        assert (images == []) == (name in ("mma", "kgcoop")), name


CROPPED: dict[str, Any] = {"epochs": 2, "batch_size": 8, "augment": "crop_flip"}


@pytest.mark.parametrize(
    ("method", "train", "recalled"),
    [
        ({}, {}, 48),
        ({"reconstruction_image": 0.0, "consistency_image": 0.0}, {"lr": 0.1}, 48),
        ({"image_blocks": "5-6"}, {}, 0),
        ({}, {"seed": 2}, 0),
        ({}, {"batch_size": 6}, 0),
        ({}, {"augment": "randaugment"}, 0),
        ({}, {"precision": "bf16"}, 0),
        ({"name": "coprompt"}, {}, 0),
    ],
)
def test_a_run_after_another_has_the_bits_that_it_has_alone(
    method: dict[str, Any], train: dict[str, Any], recalled: int, few: Task, pictoclip: Backbone
) -> None:
    task, shared = few.shots(4, seed=1), SharedRows()
    ra.fit(ra.RMAdapter(pictoclip), task, show_progress=False, shared=shared, **CROPPED)
    made = []
    for rows in (shared, None):
        own = {key: value for key, value in method.items() if key != "name"}
        model = method_class(method.get("name", "rmadapter"))(pictoclip, **own)
        done = ra.fit(model, task, show_progress=False, shared=rows, **{**CROPPED, **train})
        made.append((done.recalled, model.state_dict()))
    (found, one), (none, other) = made
    assert (found, none) == (recalled, 0)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_other_images_and_pixels_are_not_recalled(few: Task, pictoclip: Backbone) -> None:
    task, shared = few.shots(4, seed=1), SharedRows()
    ra.fit(ra.RMAdapter(pictoclip), task, show_progress=False, shared=shared, **CROPPED)
    other = replace(pictoclip, preprocess=replace(pictoclip.preprocess, mean=(0.1, 0.2, 0.3)))
    for backbone, learned in ((other, task), (pictoclip, few.shots(4, seed=2))):
        assert ra.fit(ra.RMAdapter(backbone), learned, show_progress=False, shared=shared, **CROPPED).recalled == 0


def test_jobs_share_the_memory(few: Task, pictoclip: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits into the memory of one process does not fit into a part of it."""
    method = ra.RMAdapter(pictoclip)
    method.start(few.classes, few.template)
    every = sum(
        x.nbytes
        for x in views._tensors(
            Views(method, few.train, "none", 1, nullcontext)._all([(0, list(range(len(few.train))))])
        )
        if x is not None
    )
    monkeypatch.setattr(views, "MEMORY", 2 * every)
    plan = [(0, list(range(len(few.train))))]
    kept = [Views(method, few.train, "none", 1, nullcontext, 0, SharedRows(0, jobs))._all(plan) for jobs in (1, 2, 3)]
    assert [one is not None for one in kept] == [True, True, False]


def test_a_resumed_run_recalls_the_same(few: Task, pictoclip: Backbone, tmp_path: Path) -> None:
    task, shared, calls = few.shots(4, seed=1), SharedRows(), 0

    class Stopped(ra.RMAdapter):
        def after_epoch(self, epoch: int, epochs: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt

    longer = {**CROPPED, "epochs": 3}
    whole = ra.RMAdapter(pictoclip)
    ra.fit(whole, task, show_progress=False, shared=shared, **longer)
    with pytest.raises(KeyboardInterrupt):
        ra.fit(Stopped(pictoclip), task, tmp_path / "run", show_progress=False, shared=shared, **longer)
    method = ra.RMAdapter(pictoclip)
    again = ra.fit(method, task, tmp_path / "run", resume=True, show_progress=False, shared=shared, **longer)
    assert again.recalled == 2 * 24
    assert all(torch.equal(value, method.state_dict()[key]) for key, value in whole.state_dict().items())
