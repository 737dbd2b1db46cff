"""Protocols: what is trained on, and what is scored afterwards. Each is data, and knows no method.

Source: base-to-novel, cross-dataset and domain generalization as of CoOp and CoCoOp (Zhou et al., IJCV and CVPR 2022);
transfer as of TransMiter (Park et al., AAAI 2026): base-to-novel on two backbones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rmadapter.data import public_names, task_names
from rmadapter.errors import SettingError, unknown

Classes = Literal["base", "novel", "all"]
"""Which of a task's: the first half, the other, or both."""
HALVES = ("base-to-novel", "transfer")
"""Protocols that train on half of a task's classes and test on either half."""


@dataclass(frozen=True)
class Evaluation:
    """A task's test items among some of its classes, and what they stand for in the protocol's table."""

    role: str
    data: str
    classes: Classes


@dataclass(frozen=True)
class Leg:
    """One training task with what is scored after it."""

    data: str
    classes: Literal["base", "all"]
    shots: int
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Choice:
    """What a protocol is run over."""

    data: tuple[str, ...]
    """Tasks or folders."""
    source: str | None
    """What to train on, where the others are only tested on."""
    shots: tuple[int, ...]
    """One number, or those of a curve; none: the protocol's own."""


@dataclass(frozen=True)
class Protocol:
    """A protocol by name."""

    name: str
    about: str
    default_shots: tuple[int, ...]
    legs: Callable[[Choice], list[Leg]]


def _base_to_novel(choice: Choice) -> list[Leg]:
    return [
        Leg(data, "base", shots, (Evaluation("base", data, "base"), Evaluation("novel", data, "novel")))
        for data in choice.data
        for shots in choice.shots
    ]


def _few_shot(choice: Choice) -> list[Leg]:
    return [
        Leg(data, "all", shots, (Evaluation("all", data, "all"),)) for data in choice.data for shots in choice.shots
    ]


def _from_source(choice: Choice) -> list[Leg]:
    source = choice.source or choice.data[0]
    targets = tuple(Evaluation("target", data, "all") for data in choice.data if data != source)
    if not targets:
        raise SettingError("there is nothing to test on beside the source", got=source, remedy="name targets by --data")
    return [Leg(source, "all", shots, (Evaluation("source", source, "all"), *targets)) for shots in choice.shots]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("base-to-novel", "train on half of a task's classes, test on both halves", (16,), _base_to_novel),
        Protocol("cross-dataset", "train on all classes of one task, test on other tasks", (16,), _from_source),
        Protocol("domain-generalization", "train on one domain, test on others of its classes", (16,), _from_source),
        Protocol(
            "transfer",
            "base-to-novel, trained on one backbone and carried over to another",
            (16,),
            _base_to_novel,
        ),
        Protocol("few-shot", "train on all classes from few shots to many", (1, 2, 4, 8, 16), _few_shot),
    )
}


def protocol(name: str) -> Protocol:
    """A protocol by name. Raises SettingError for an unknown one."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def legs(name: str, data: Sequence[str], source: str | None, shots: Sequence[int]) -> list[Leg]:
    """What a protocol trains on and scores.

    Args:
        name: a protocol's.
        data: tasks or folders, or the one word ``pictograms``: every theme (base-to-novel, few-shot), the wide task and
            every theme (cross-dataset), or the wide task and its domains (domain-generalization). Or ``public``: the
            11 public data sets, ImageNet first; ImageNet and its four variants (domain-generalization).
        source: what to train on where the rest is only tested on; None: the first of ``data``.
        shots: images a class; empty: the protocol's own.

    Raises:
        SettingError: for an unknown protocol, no data, or a source where there is none.
    """
    chosen = protocol(name)
    if not data:
        raise SettingError("no data are named", allowed="tasks or folders, or the one word pictograms")
    if source is not None and chosen.legs is not _from_source:
        raise SettingError(f"{name} has no source", got=source, remedy="leave out --source")
    return chosen.legs(Choice(tuple(_expand(name, data)), source, tuple(shots) or chosen.default_shots))


def _expand(name: str, data: Sequence[str]) -> list[str]:
    """``pictograms`` or ``public`` as the tasks that a protocol runs over."""
    if list(data) == ["public"]:
        return list(public_names() if name != "domain-generalization" else _imagenet())
    if list(data) != ["pictograms"]:
        return list(data)
    wide = "pictograms/wide"
    themes = [task for task in task_names() if task != wide]
    if name == "domain-generalization":
        return [wide, *(task for task in task_names(domains=True) if task.startswith(f"{wide}/"))]
    return [wide, *themes] if name == "cross-dataset" else themes


def _imagenet() -> tuple[str, ...]:
    """ImageNet, and what shows its classes otherwise."""
    return (public_names()[0], *(name for name in public_names(domains=True) if name not in public_names()))
