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
Kind = Literal["halves", "source", "curve"]
"""What a protocol's numbers are, and so which tables and plots it has. halves: half of a task's classes is trained on,
and either half tested; source: one task is trained on, and others are tested; curve: numbers of shots."""


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


def _halves(choice: Choice) -> list[Leg]:
    return [
        Leg(data, "base", shots, (Evaluation("base", data, "base"), Evaluation("novel", data, "novel")))
        for data in choice.data
        for shots in choice.shots
    ]


def _curve(choice: Choice) -> list[Leg]:
    return [
        Leg(data, "all", shots, (Evaluation("all", data, "all"),)) for data in choice.data for shots in choice.shots
    ]


def _from_source(choice: Choice) -> list[Leg]:
    source = choice.source or choice.data[0]
    targets = tuple(Evaluation("target", data, "all") for data in choice.data if data != source)
    if not targets:
        raise SettingError("there is nothing to test on beside the source", got=source, remedy="name targets by --data")
    return [Leg(source, "all", shots, (Evaluation("source", source, "all"), *targets)) for shots in choice.shots]


LEGS: dict[Kind, Callable[[Choice], list[Leg]]] = {"halves": _halves, "source": _from_source, "curve": _curve}
WIDE = "pictograms/wide"


def _themes() -> list[str]:
    return [task for task in task_names() if task != WIDE]


def _domains() -> list[str]:
    return [WIDE, *(task for task in task_names(domains=True) if task.startswith(f"{WIDE}/"))]


def _imagenet() -> list[str]:
    """ImageNet, and what shows its classes otherwise."""
    return [public_names()[0], *(name for name in public_names(domains=True) if name not in public_names())]


@dataclass(frozen=True)
class Protocol:
    """A protocol by name."""

    name: str
    about: str
    kind: Kind
    default_shots: tuple[int, ...]
    small: Callable[[], Sequence[str]] = _themes
    """The data called ``pictograms``."""
    public: Callable[[], Sequence[str]] = public_names
    """The data called ``public``."""
    two_backbones: bool = False
    """Is what was trained on one used on another?"""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("base-to-novel", "train on half of a task's classes, test on both halves", "halves", (16,)),
        Protocol(
            "cross-dataset",
            "train on all classes of one task, test on other tasks",
            "source",
            (16,),
            small=lambda: [WIDE, *_themes()],
        ),
        Protocol(
            "domain-generalization",
            "train on one domain, test on others of its classes",
            "source",
            (16,),
            small=_domains,
            public=_imagenet,
        ),
        Protocol(
            "transfer",
            "base-to-novel, trained on one backbone and carried over to another",
            "halves",
            (16,),
            two_backbones=True,
        ),
        Protocol("few-shot", "train on all classes from few shots to many", "curve", (1, 2, 4, 8, 16)),
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
        data: tasks or folders, or the one word ``pictograms``: every theme, the wide task and every theme
            (cross-dataset), or the wide task and its domains (domain-generalization). Or ``public``: the 11 public data
            sets, ImageNet first; ImageNet and its four variants (domain-generalization).
        source: what to train on where the rest is only tested on; None: the first of ``data``.
        shots: images a class; empty: the protocol's own.

    Raises:
        SettingError: for an unknown protocol, no data, or a source where there is none.
    """
    chosen = protocol(name)
    if not data:
        raise SettingError("no data are named", allowed="tasks or folders, or the one word pictograms")
    if source is not None and chosen.kind != "source":
        raise SettingError(f"{name} has no source", got=source, remedy="leave out --source")
    words = {"pictograms": chosen.small, "public": chosen.public}
    named = words[data[0]]() if len(data) == 1 and data[0] in words else data
    return LEGS[chosen.kind](Choice(tuple(named), source, tuple(shots) or chosen.default_shots))
