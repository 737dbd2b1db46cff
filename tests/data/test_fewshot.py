"""Sampling and splits, against the published algorithm written out again from its description."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmadapter.data import Task, fewshot
from rmadapter.data.task import Item


@dataclass(frozen=True)
class Thing:
    label: int
    name: str


def published(train: list[Thing], val: list[Thing], shots: int, seed: int) -> tuple[list[Thing], list[Thing]]:
    """Dassl's order of events on the global generator: seed, training classes by first appearance, then validation."""
    state = random.getstate()
    random.seed(seed)
    drawn = []
    for items, count in ((train, shots), (val, min(shots, 4))):
        seen: list[int] = []
        for item in items:
            if item.label not in seen:
                seen.append(item.label)
        part: list[Thing] = []
        for label in seen:
            group = [item for item in items if item.label == label]
            part.extend(random.sample(group, count) if len(group) >= count else group)
        drawn.append(part)
    random.setstate(state)
    return drawn[0], drawn[1]


def things(counts: list[int], shuffle: int | None = None) -> list[Thing]:
    items = [Thing(label, f"{label}-{i}") for label, count in enumerate(counts) for i in range(count)]
    if shuffle is not None:
        random.Random(shuffle).shuffle(items)
    return items


NAMES = [f"class {label}" for label in range(12)]
LISTS = [things([20] * 7), things([3, 30, 16, 1, 17], shuffle=4), things([50, 18, 16, 2] * 3, shuffle=9)]


@pytest.mark.parametrize("items", LISTS, ids=["even", "scarce", "mixed"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 42])
@pytest.mark.parametrize("shots", [1, 4, 16])
def test_draw_is_the_published_one(items: list[Thing], seed: int, shots: int) -> None:
    val = things([5, 2, 9, 1, 4])
    assert fewshot.few_shot(items, val, shots, seed) == published(items, val, shots, seed)


def test_global_random_state_is_untouched() -> None:
    state = random.getstate()
    fewshot.few_shot(LISTS[0], LISTS[1], 4, 1)
    fewshot.split_by_class(LISTS[0], 1, NAMES)
    assert random.getstate() == state


@given(st.integers(1, 60))
def test_base_is_the_first_half_rounded_up(classes: int) -> None:
    labels = list(range(classes))
    random.Random(classes).shuffle(labels)
    base, novel = fewshot.base_novel(labels)
    assert base == list(range(math.ceil(classes / 2)))
    assert novel == list(range(math.ceil(classes / 2), classes))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(0, 5))
def test_splits_are_disjoint_and_complete(counts: list[int], seed: int) -> None:
    items = things(counts)
    train, val, test = fewshot.split_by_class(items, seed, NAMES)
    assert sorted([*train, *val, *test], key=str) == sorted(items, key=str)
    for label, count in enumerate(counts):
        sizes = [sum(item.label == label for item in part) for part in (train, val, test)]
        if count >= 2:
            assert sizes[0] >= 1 and sizes[2] >= 1
        if count >= 10:
            assert abs(sizes[0] - count / 2) <= 1 and abs(sizes[1] - count / 5) <= 1
    again = fewshot.split_by_class(items, seed, NAMES)
    assert (train, val, test) == again


def test_one_more_class_moves_no_other() -> None:
    small, large = things([9, 12]), things([9, 12, 30])
    for part, whole in zip(
        fewshot.split_by_class(small, 3, NAMES), fewshot.split_by_class(large, 3, NAMES), strict=True
    ):
        assert part == [item for item in whole if item.label < 2]


def test_shots_and_base_in_either_order(animals: Task) -> None:
    one, other = animals.base().shots(4, seed=2), animals.shots(4, seed=2).base()
    assert one.train == other.train
    assert one.val == other.val
    assert len(one.train) == 4 * len(one.classes)
    assert len(one.val) == 4 * len(one.classes)
    assert one.test == animals.base().test


def test_base_images_are_among_all_class_images(animals: Task) -> None:
    whole = {item.picture.name for item in animals.shots(4, seed=2).train}
    assert {item.picture.name for item in animals.base().shots(4, seed=2).train} <= whole
    assert {item.picture.name for item in animals.novel().shots(4, seed=2).train} <= whole


def test_seed_zero_is_a_seed(animals: Task) -> None:
    draws = [animals.shots(4, seed=seed).train.items for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_base_and_novel_relabel_from_zero(animals: Task) -> None:
    base, novel = animals.base(), animals.novel()
    assert base.classes + novel.classes == animals.classes
    for task in (base, novel):
        for split in (task.train, task.val, task.test):
            assert sorted(set(split.labels)) == list(range(len(task.classes)))
    first = novel.test.items[0]
    assert isinstance(first, Item)
    original = next(item for item in animals.test if item.picture == first.picture)
    assert animals.classes[original.label] == novel.classes[first.label]
