"""The stages of the study as data: what each runs, and what its arms start from; see stages.toml beside arms.toml."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rmadapter import arms, sweep
from rmadapter.arms import Arm
from rmadapter.errors import SettingError, unknown
from rmadapter.methods import method_class
from rmadapter.settings import Seed, Settings
from rmadapter.store import Plan

USUAL = "usual"
"""The setting without changes."""
OURS = "rmadapter"
"""The method that is studied; arms of others are left as they are."""


class Changes(Settings):
    """Settings that differ."""

    method: dict[str, Any] = {}
    """Of the method."""
    train: dict[str, Any] = {}
    """Of training."""

    def over(self, below: Changes) -> Changes:
        """Both; where they differ, this one."""
        return Changes(method={**below.method, **self.method}, train={**below.train, **self.train})


class Candidate(Changes):
    """One of those that a stage chooses from."""

    label: str
    """What tables show."""


class Situation(Changes):
    """Under what an arm is looked at."""

    name: str
    """What tables show."""
    shots: PositiveInt = 16
    """Images a class."""


class Stage(Settings):
    """Arms in settings, and what is chosen among candidates."""

    name: str
    """For commands and tables."""
    about: str
    """What it asks."""
    arms: tuple[str, ...] = Field(min_length=1)
    """By their labels in arms.toml."""
    settings: tuple[str, ...] = (USUAL,)
    """In which each arm is run."""
    choose: Literal["none", "each", "together"] = "none"
    """A candidate for each arm and setting, one for all (by the mean over arms), or none: they are shown."""
    candidates: tuple[Candidate, ...] = ()
    """None: each arm once, with what was chosen."""
    rates: tuple[PositiveFloat, ...] = ()
    """AdamW's rates that every candidate is tried at; none: the rate that it has."""
    items: Literal["val", "test"] = "val"
    """What is scored."""
    data: str = "tuning"
    """A list of tasks by its name."""
    seeds: tuple[Seed, ...] = (1,)
    """Of shots, initial values and batches."""

    @model_validator(mode="after")
    def _chooses_on_validation_items(self) -> Self:
        if self.items == "test" and (self.candidates or self.choose != "none"):
            raise ValueError("a stage that scores test items has no candidates and chooses nothing")
        if self.choose != "none" and not self.candidates:
            raise ValueError("there is nothing to choose from")
        return self

    @property
    def tried(self) -> list[Candidate]:
        """Candidates, at every rate."""
        if not self.rates:
            return list(self.candidates)
        pairs = itertools.product(self.candidates, self.rates)
        return [
            Candidate(label=f"{c.label}, rate {r:g}", method=c.method, train={**c.train, "lr": r}) for c, r in pairs
        ]


class Study(Settings):
    """stages.toml."""

    base: Changes
    """What every arm of RMAdapter starts from."""
    data: dict[str, tuple[str, ...]]
    """Lists of tasks by name, as --data takes them."""
    settings: tuple[Situation, ...] = ()
    """Beside the usual one."""
    stages: tuple[Stage, ...]
    """In their order."""
    start: dict[str, tuple[str, ...]] = {}
    """By arm, those whose chosen settings stand below its own."""
    arms: dict[str, Changes]
    """arms.toml: what each arm is, by label; ``method`` has its name."""

    @classmethod
    def load(cls, folder: Path) -> Study:
        """The study in a folder. Raises SettingError for a name that is unknown or stands twice, or a wrong file."""
        read = {arm.label: {"method": arm.changes["method"]} for arm in arms.read(folder / "arms.toml")}
        content = tomllib.loads((folder / "stages.toml").read_text(encoding="utf-8"))
        listed = [Stage.parse(entry, f"stage {number}") for number, entry in enumerate(content["stages"], start=1)]
        study = cls.parse({**content, "stages": listed, "arms": read}, str(folder / "stages.toml"))
        names = [stage.name for stage in study.stages]
        if len({*names}) < len(names):
            raise SettingError("two stages have one name", got=", ".join(names))
        for arm in (*study.start, *(below for each in study.start.values() for below in each)):
            _known("arm", arm, study.arms)
        for stage in study.stages:
            for arm in stage.arms:
                _known("arm", arm, study.arms)
            for setting in stage.settings:
                study.situation(setting)
            _known("list of tasks", stage.data, study.data)
        return study

    def stage(self, name: str) -> Stage:
        """A stage by its name."""
        stages = {stage.name: stage for stage in self.stages}
        _known("stage", name, stages)
        return stages[name]

    def situation(self, name: str) -> Situation:
        """A setting by its name."""
        found = {situation.name: situation for situation in (Situation(name=USUAL), *self.settings)}
        _known("setting", name, found)
        return found[name]


def _known(what: str, name: str, names: Mapping[str, object]) -> None:
    if name not in names:
        raise unknown(what, name, names)


@dataclass
class Chosen:
    """What stages chose so far."""

    together: Changes = field(default_factory=Changes)
    """For all arms, in every setting."""
    own: dict[tuple[str, str], Changes] = field(default_factory=dict)
    """By setting and arm."""

    def add(self, setting: str, arm: str, changes: Changes) -> None:
        """Something more for an arm in a setting."""
        self.own[setting, arm] = changes.over(self.own.get((setting, arm), Changes()))

    def of(self, setting: str, names: tuple[str, ...]) -> Iterator[Changes]:
        """What arms got in a setting, from the lowest to the highest."""
        yield from (self.own[setting, name] for name in names if (setting, name) in self.own)


def label(arm: str, setting: str, candidate: Candidate | None) -> str:
    """What tables show; of two stages that run the same thing it is the same."""
    where = "" if setting == USUAL else f" ({setting})"
    return f"{arm}{where}" + ("" if candidate is None else f": {candidate.label}")


def arm(study: Study, name: str, setting: str, candidate: Candidate | None, chosen: Chosen) -> Arm:
    """An arm as a stage runs it; the order of what stands over what is that of stages.toml's head."""
    situation, own, fixed = study.situation(setting), (*study.start.get(name, ()), name), study.arms[name]
    title = label(name, setting, candidate)
    method = str(fixed.method["name"])
    if method != OURS:
        has = method_class(method).Settings.model_fields
        suited = {key: value for key, value in situation.method.items() if key in has}
        return Arm(title, {"method": {**suited, **fixed.method}, "train": dict(situation.train)})
    layers = [chosen.together, *chosen.of(USUAL, own), situation]
    layers += [] if setting == USUAL else [*chosen.of(setting, own)]
    layers += [fixed] if candidate is None else [fixed, candidate]
    found = study.base
    for layer in layers:
        found = layer.over(found)
    return Arm(title, {"method": found.method, "train": found.train})


def made(study: Study, stage: Stage, setting: str, chosen: Chosen) -> list[Arm]:
    """A stage's arms in a setting, each with each candidate."""
    choices = [(name, candidate) for name in stage.arms for candidate in stage.tried or (None,)]
    return [arm(study, name, setting, candidate, chosen) for name, candidate in choices]


def plans(study: Study, stage: Stage, chosen: Chosen) -> dict[str, Plan]:
    """A plan a setting; all of them together are the stage's runs."""
    return {
        setting: sweep.plan(
            "base-to-novel",
            made(study, stage, setting, chosen),
            data=study.data[stage.data],
            seeds=stage.seeds,
            shots=(study.situation(setting).shots,),
            common={"test_on": stage.items},
        )
        for setting in stage.settings
    }


def as_toml(about: str, made: list[Arm]) -> str:
    """Arms as a file for ``rmadapter bench --arms``."""
    text = f"about = {_toml(about)}\n"
    for each in made:
        tables = "".join(f"{key} = {_toml(each.changes[key])}\n" for key in ("method", "train"))
        text += f"\n[[arms]]\nlabel = {_toml(each.label)}\n{tables}"
    return text


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return '"none"' if value is None else json.dumps(value, ensure_ascii=False)
