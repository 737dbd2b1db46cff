"""Few-shot sampling, base and novel classes, splits: pure functions of (items, seed).

Source: the sampling of Dassl and CoOp (Zhou et al., IJCV 2022), which all published numbers of this field share.
No function reads or writes the global random state.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Labelled(Protocol):
    """Anything with an integer class label."""

    @property
    def label(self) -> int: ...


T = TypeVar("T", bound=Labelled)

VALIDATION_SHOTS = 4  # the published code draws min(shots, 4) validation items a class


def by_label(items: Sequence[T]) -> dict[int, list[T]]:
    """Items grouped by label, in order of first appearance of each label, file order kept inside a group."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def draw(items: Sequence[T], shots: int, rng: random.Random) -> list[T]:
    """``shots`` items of every class, without replacement; a class that has fewer gives all it has."""
    drawn: list[T] = []
    for group in by_label(items).values():
        drawn += rng.sample(group, shots) if len(group) >= shots else group
    return drawn


def few_shot(train: Sequence[T], val: Sequence[T], shots: int, seed: int) -> tuple[list[T], list[T]]:
    """The few-shot training and validation items of all classes, as the published code draws them.

    One ``random.Random(seed)`` draws training items first, then ``min(shots, 4)`` validation items a class.
    """
    rng = random.Random(seed)
    return draw(train, shots, rng), draw(val, min(shots, VALIDATION_SHOTS), rng)


def base_novel(labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Labels in ascending order, cut in two: the first ceil(n / 2) are the base classes, the rest the novel ones."""
    ordered = sorted(set(labels))
    half = math.ceil(len(ordered) / 2)
    return ordered[:half], ordered[half:]


def split_by_class(
    items: Sequence[T], seed: int, names: Sequence[str], train: float = 0.5, val: float = 0.2
) -> tuple[list[T], list[T], list[T]]:
    """Train, validation and test items of data that have no split of their own.

    Each class is shuffled by ``random.Random(f"{seed}-{name}")``, so that another class, wherever its name falls in
    the order, moves none of this one's items. Of n items, round(n · train) go to train and round(n · val) to
    validation; where a class has two items or more, at least one goes to train and one to test.

    Args:
        items: in an order that does not depend on how a disk lists them.
        names: of the classes, in label order.
    """
    parts: tuple[list[T], list[T], list[T]] = ([], [], [])
    for label, group in sorted(by_label(items).items()):
        order = list(group)
        random.Random(f"{seed}-{names[label]}").shuffle(order)
        n = len(order)
        n_train = min(max(1, round(n * train)), max(1, n - 1))
        n_val = min(round(n * val), n - n_train - 1) if n > n_train + 1 else 0
        parts[0].extend(order[:n_train])
        parts[1].extend(order[n_train : n_train + n_val])
        parts[2].extend(order[n_train + n_val :])
    return parts


def scarce(labels: Iterable[int], classes: Sequence[str], shots: int) -> str:
    """A sentence on the classes that have fewer than ``shots`` items; empty where there is none.

    Args:
        labels: of all items.
        classes: names in label order.
    """
    counts = Counter(labels)
    few = [(counts[label], name) for label, name in enumerate(classes) if counts[label] < shots]
    if not few:
        return ""
    fewest, name = min(few)
    many = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
    return f"{many} fewer than {shots} training images (fewest: {name}, {fewest})"
