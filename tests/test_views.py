"""Training images that are not augmented go through the frozen blocks once, and nothing changes by it."""

from __future__ import annotations

from contextlib import nullcontext
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
from rmadapter.views import Drawn, Seen, Views


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
    drawn: Drawn | None = None,
) -> list[Seen]:
    split = task.train
    plan = [(epoch, batch) for epoch in range(2) for batch in order(len(split), 5, 1, epoch)]
    return list(Views(method, split, augment, 1, nullcontext, workers, drawn).batches(plan, 5, again))


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


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
@pytest.mark.parametrize("name", ["rmadapter", "coop", "coprompt"])
def test_runs_that_draw_the_same_share_it(
    name: str, augment: Augment, few: Task, pictoclip: Backbone, images: list[int]
) -> None:
    """With a budget for all rows and with a small one: the same bits, and no image drawn twice that was kept."""
    method, task = method_class(name)(pictoclip), few.shots(4, seed=1)
    alone, count = seen(method, task, augment), len(images)
    drawn = Drawn()
    equal(alone, seen(method, task, augment, drawn=drawn), 0.0)
    images.clear()
    equal(alone, seen(method, task, augment, workers=1, drawn=drawn), 0.0)
    assert images == []
    small = Drawn(sum(x.nbytes for x in (alone[0].rows.x, alone[0].rows.past, alone[0].teacher) if x is not None))
    for _ in range(2):
        images.clear()
        equal(alone, seen(method, task, augment, drawn=small), 0.0)
    assert 0 < len(images) < count


def test_methods_that_begin_elsewhere_share_no_rows(few: Task, pictoclip: Backbone, images: list[int]) -> None:
    task, drawn = few.shots(4, seed=1), Drawn()
    for name in ("rmadapter", "mma", "coop", "kgcoop", "maple"):
        method = method_class(name)(pictoclip)
        alone = seen(method, task, "crop_flip")
        images.clear()
        equal(alone, seen(method, task, "crop_flip", drawn=drawn), 0.0)
        assert (images == []) == (name in ("mma", "kgcoop")), name


def test_what_was_drawn_is_dropped_for_another_split(few: Task, pictoclip: Backbone) -> None:
    drawn = Drawn()
    drawn.of("one").keep("key", (torch.ones(3),))
    assert drawn.of("one").find("key") is not None and drawn.of("other").find("key") is None
    assert drawn.of("one").find("key") is None
    for name, settings in (("rmadapter", {}), ("rmadapter", {"reconstruction_image": 0}), ("rmadapter", {"seed": 2})):
        states = []
        for shared in (drawn, None):
            method = method_class(name)(pictoclip, **{key: value for key, value in settings.items() if key != "seed"})
            task = few.shots(4, seed=settings.get("seed", 1))
            quick = {"epochs": 2, "batch_size": 8, "augment": "crop_flip", "seed": settings.get("seed", 1)}
            ra.fit(method, task, show_progress=False, drawn=shared, **quick)
            states.append(method.state_dict())
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
