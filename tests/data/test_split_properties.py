"""Splits and shots: published draws as literals, and what must hold for any list, folder and seed."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmadapter import load_task
from rmadapter.data import Split, Task, fewshot
from rmadapter.data.task import ImageFile, Item

GOLDEN = json.loads(Path(__file__).with_name("published_draws.json").read_text(encoding="utf-8"))
LISTS = {one["name"]: one for one in GOLDEN["lists"]}


def task_of(train: list[list[Any]], val: list[list[Any]], test: list[list[Any]]) -> Task:
    """A task of [label, name] rows."""
    parts = [tuple(Item(label, ImageFile(Path(name), name)) for label, name in part) for part in (train, val, test)]
    count = 1 + max(label for part in (train, val, test) for label, _ in part)
    return Task("task", tuple(f"class {label}" for label in range(count)), "a {}.", *parts)


def names(split: Split) -> list[str]:
    return [item.picture.name for item in split]


def test_the_golden_file_has_what_it_should() -> None:
    cases = {(one["list"], one["shots"], one["seed"]) for one in GOLDEN["draws"]}
    assert len(cases) == len(GOLDEN["draws"]) == 3 * 2 * 5 and {seed for _, _, seed in cases} == {0, 1, 2, 3, 42}
    labels = [label for label, _ in LISTS["not ascending"]["train"]]
    assert list(dict.fromkeys(labels)) != sorted(set(labels))
    assert min(Counter(label for label, _ in LISTS["unbalanced"]["train"]).values()) < 2


@pytest.mark.parametrize("case", GOLDEN["draws"], ids=lambda one: f"{one['list']}-{one['shots']}-{one['seed']}")
def test_published_draws(case: dict[str, Any]) -> None:
    listed = LISTS[case["list"]]
    task = task_of(listed["train"], listed["val"], listed["train"])
    drawn = task.shots(case["shots"], seed=case["seed"])
    assert names(drawn.train) == case["train"]
    assert names(drawn.val) == case["val"]
    labels = dict(map(reversed, [*listed["train"], *listed["val"]]))
    assert [item.label for item in (*drawn.train, *drawn.val)] == [labels[n] for n in (*case["train"], *case["val"])]


COUNTS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(0, 5)), min_size=2, max_size=7)
SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Any numbers of images a class and split, each split's list in any order."""
    counts = draw(COUNTS)
    rng = random.Random(draw(st.integers(0, 1000)))
    parts = []
    for part in range(3):
        rows = [[label, f"{part}-{label}-{i}"] for label, count in enumerate(counts) for i in range(count[part])]
        rng.shuffle(rows)
        parts.append(rows)
    return task_of(*parts)


@given(tasks(), st.integers(1, 20), SEEDS)
def test_shots_are_as_many_as_asked_for_and_none_twice(task: Task, shots: int, seed: int) -> None:
    drawn = task.shots(shots, seed)
    for before, after, wanted in ((task.train, drawn.train, shots), (task.val, drawn.val, min(shots, 4))):
        there = Counter(before.labels)
        assert Counter(after.labels) == {label: min(count, wanted) for label, count in there.items()}
        assert len(set(names(after))) == len(after) and set(after.items) <= set(before.items)
        assert list(dict.fromkeys(after.labels)) == list(dict.fromkeys(before.labels))
    assert drawn.test == task.test and drawn == task.shots(shots, seed)


@given(tasks(), st.integers(1, 20), SEEDS)
def test_base_and_novel_part_every_split(task: Task, shots: int, seed: int) -> None:
    base, novel, drawn = task.base(), task.novel(), task.shots(shots, seed)
    assert base.classes + novel.classes == task.classes and 0 <= len(base.classes) - len(novel.classes) <= 1
    for part in ("train", "val", "test"):
        for whole, halves in ((task, (base, novel)), (drawn, (base.shots(shots, seed), novel.shots(shots, seed)))):
            expected = {item.picture.name: whole.classes[item.label] for item in getattr(whole, part)}
            found = [(item.picture.name, half.classes[item.label]) for half in halves for item in getattr(half, part)]
            assert len(found) == len(expected) and dict(found) == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.randoms())
def test_base_novel_ignores_order_and_number(labels: list[int], rng: random.Random) -> None:
    base, novel = fewshot.base_novel(labels)
    assert base + novel == sorted(set(labels)) and len(base) == (len(set(labels)) + 1) // 2
    shuffled = labels * 2
    rng.shuffle(shuffled)
    assert fewshot.base_novel(shuffled) == (base, novel)


NAMES = st.lists(st.text("abc xyz", min_size=1, max_size=4), min_size=2, max_size=6, unique=True)


@given(NAMES, st.data(), SEEDS)
def test_another_class_moves_no_item_wherever_its_name_falls(
    classes: list[str], data: st.DataObject, seed: int
) -> None:
    counts = {name: data.draw(st.integers(1, 25)) for name in classes}
    added = data.draw(st.sampled_from(classes))

    def placed(chosen: list[str]) -> dict[str, int]:
        ordered = sorted(chosen)
        items = [
            Item(label, ImageFile(Path(), f"{name}/{i}"))
            for label, name in enumerate(ordered)
            for i in range(counts[name])
        ]
        parts = fewshot.split_by_class(items, seed, ordered)
        assert sum(map(len, parts)) == len(items)
        return {item.picture.name: number for number, part in enumerate(parts) for item in part}

    few, all_ = placed([name for name in classes if name != added]), placed(classes)
    assert few.items() <= all_.items() and len(all_) == len(few) + counts[added]


def test_seeds_split_differently() -> None:
    items = [Item(label, ImageFile(Path(), f"{label}/{i}")) for label in range(3) for i in range(12)]
    splits = [fewshot.split_by_class(items, seed, ["a", "b", "c"]) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    orders = [[int(str(item.picture.name).split("/")[1]) for item in splits[0][0] if item.label == k] for k in range(3)]
    assert orders[0] != orders[1], "classes of a size are not split alike"


@contextmanager
def listed_in_any_order(rng: random.Random) -> Iterator[None]:
    """Folders list their files in an order that the disk chooses."""
    original = os.scandir

    @contextmanager
    def scandir(path: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        with original(path) as entries:
            found = list(entries)
        rng.shuffle(found)
        yield iter(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rmadapter.data.folders.os.scandir", scandir)
        yield


@given(st.lists(st.integers(2, 8), min_size=2, max_size=4), st.randoms(use_true_random=False), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_folder_is_read_the_same_however_its_disk_lists_it(counts: list[int], rng: random.Random, seed: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        paths = [
            Path(temporary) / f"class {label}" / "ab"[i % 2] / f"{i}.png"
            for label, n in enumerate(counts)
            for i in range(n)
        ]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        expected = load_task(temporary, split_seed=seed)
        with listed_in_any_order(rng):
            assert load_task(temporary, split_seed=seed) == expected
            assert load_task(temporary, split_seed=seed).shots(2, 1) == expected.shots(2, 1)
        assert sorted(names(expected.train) + names(expected.val) + names(expected.test)) == sorted(
            path.relative_to(temporary).as_posix() for path in paths
        )
