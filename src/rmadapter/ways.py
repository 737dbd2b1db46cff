"""The protocol ``transfer``: ways to use on one backbone what was trained on another, beside each other.

Every task and seed has these runs: the target alone; each teacher on its own backbone; each way of using it on the
target; and what is trained on the target itself. Teachers and what is trained are runs as in any sweep. The recipe of a
way has one key more, ``transfer``, with its kind, the teacher's id and the teacher's recipe.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rmadapter import adapter, protocols
from rmadapter.arms import Arm
from rmadapter.carrying import carry_to
from rmadapter.errors import SettingError
from rmadapter.files import new_folder
from rmadapter.kit import Kit
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.recipe import Recipe, resolve
from rmadapter.run import read_run
from rmadapter.store import Plan, Planned, Store, run_id
from rmadapter.sweep import POLL, answerable, learn, planned_run, tidy, unusual, where, whole
from rmadapter.transfer import Mixture, check_supervised

KEY = "transfer"
"""In a planned run's recipe; recipes of other runs have no such key."""
NET = "transmiter"
"""The method that carries over."""
ZERO_SHOT = Arm("zero_shot", {"method": {"name": "zero_shot"}})


class Way(NamedTuple):
    """A way to use a teacher on another backbone."""

    label: str
    """Of its row."""
    kind: Literal["eft", "ensemble", "net"]
    novel: Literal["known", "blind"] = "known"
    """Of a net: whether the names of novel classes are known to its extraction."""
    plus: bool = False
    """Of a net: whether it takes the supervised step."""


WAYS = (
    Way("EFT with {teacher} on {target}", "eft"),
    Way("ensemble with {teacher} on {target}", "ensemble"),
    Way("{net} from {teacher} on {target}, names known", "net"),
    Way("{net} from {teacher} on {target}, names known", "net", plus=True),
    Way("{net} from {teacher} on {target}, blind", "net", "blind"),
    Way("{net} from {teacher} on {target}, blind", "net", "blind", plus=True),
)


def plan(
    teachers: Sequence[Arm],
    nets: Sequence[Arm],
    direct: Sequence[Arm],
    *,
    to: str,
    pretrained: str | None = "default",
    data: Sequence[str] = ("pictograms",),
    seeds: Sequence[int] = (1,),
    shots: Sequence[int] = (),
    common: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Plan:
    """The grid: every task, number of shots and seed, seed by seed; ways behind the teachers that they wait for.

    Args:
        teachers: methods to train on their own backbone and to carry over.
        nets: the method ``transmiter`` with its settings. Of two that differ in training alone, which only the
            supervised step reads, the second has rows with that step and no others.
        direct: methods to train on the target.
        to, pretrained: the target.
        data, seeds, shots, common: as in ``sweep.plan``; the backbone among ``common`` is the teachers'.

    Raises:
        SettingError, DataError, BackboneError: whatever cannot work, before anything is computed.
    """
    for net in nets:
        if net.changes["method"]["name"] != NET:
            raise SettingError(f"{net.label!r} does not carry over", allowed=NET)
        if "novel" in net.changes["method"]:
            raise SettingError("novel names are known in some rows and not in others", remedy="leave out novel")
    kit, runs = Kit(device), list[Planned]()
    here = dict(common or {})
    there = {**here, "backbone": to, "pretrained": pretrained}
    for seed in seeds:
        for leg in protocols.legs(KEY, tidy(data), None, shots):
            taught = [_planned(arm, here, leg, seed, kit) for arm in teachers]
            runs += [_planned(ZERO_SHOT, there, leg, seed, kit), *taught]
            runs += [_planned(arm, there, leg, seed, kit) for arm in direct]
            for arm, teacher in zip(teachers, taught, strict=True):
                bound = method_class(teacher.recipe["method"]).class_bound
                ways = [way for way in WAYS if not (bound and way.kind == "net" and way.novel == "known")]
                made = dict[str, Planned]()
                for net, way in itertools.product(nets, ways):
                    run = _by(way, arm.label, teacher, net, there, leg, kit)
                    made.setdefault(run.id + run.label * way.plus, run)
                runs += made.values()
    return whole(KEY, runs, kit)


def _planned(arm: Arm, common: Mapping[str, Any], leg: protocols.Leg, seed: int, kit: Kit) -> Planned:
    """A run as in any sweep; its label has the backbone."""
    recipe = resolve(None, {**common, **arm.changes, **where(leg, seed)})
    return planned_run(_said(f"{arm.label} on {_on(recipe)}", recipe), recipe, answerable(leg, recipe, kit), kit)


def _by(
    way: Way, arm: str, teacher: Planned, net: Arm, there: Mapping[str, Any], leg: protocols.Leg, kit: Kit
) -> Planned:
    """A run of a way; its id hashes the teacher's id, and of the settings of training those alone that it reads."""
    taught, seed = Recipe.parse(teacher.recipe, "recipe"), teacher.recipe["seed"]
    changes = dict(ZERO_SHOT.changes)
    if way.kind == "net":
        changes = {**net.changes, "method": {**net.changes["method"], "novel": way.novel}}
    else:
        leg = answerable(leg, taught, kit)
    recipe = resolve(None, {**there, **changes, **where(leg, seed)})
    if way.plus:
        check_supervised(recipe.train)
    name, rest = (net.label, "") if not net.label.startswith(NET) else (NET, net.label.removeprefix(NET))
    label = way.label.format(net=name + "+" * way.plus + rest, teacher=f"{arm} of {_on(taught)}", target=_on(recipe))
    run = planned_run(_said(label, recipe), recipe, leg, kit)
    about = {"kind": way.kind, "plus": way.plus, "from": teacher.id}
    read = run.recipe if way.plus else {**run.recipe, "train": {}}
    identity = run_id({**read, KEY: about}, run.backbone, run.split)
    full = {**run.recipe, KEY: {**about, "teacher": teacher.recipe}}
    return Planned.parse({**run.plain(), "id": identity, "recipe": full}, "plan")


def _on(recipe: Recipe) -> str:
    """A backbone as labels name it; so rows of two of them are two."""
    usual = recipe.pretrained == Recipe.model_fields["pretrained"].default
    return recipe.backbone if usual else f"{recipe.backbone} ({recipe.pretrained or 'random'})"


def _said(label: str, recipe: Recipe) -> str:
    said = [text for text in unusual(KEY, recipe) if not text.startswith(("backbone=", "pretrained="))]
    return " ".join([label, *said])


def own_recipe(planned: Planned) -> Recipe:
    """The recipe of a planned run, whether it is one of a way or not."""
    return Recipe.parse({key: value for key, value in planned.recipe.items() if key != KEY}, "recipe")


def made(planned: Planned, store: Store, kit: Kit) -> tuple[Method | Mixture, dict[str, Any] | None]:
    """What a way's run is scored by, and what making it took."""
    about, recipe = planned.recipe[KEY], own_recipe(planned)
    target, task = kit.backbone(recipe), kit.task(recipe.data, recipe)
    if about["kind"] != "net":
        mixture = Mixture(about["kind"], target, _teacher(about, store, kit), kit.look)
        return mixture, {"flops_added": mixture.flops(task.classes, task.template)}
    out = store.run_folder(planned.id)
    if not adapter.is_whole(out):
        of = (store.run_folder(about["from"]), _teacher(about, store, kit))
        carry_to(new_folder(out, resume=True), recipe, task, of, target, plus=about["plus"], look=kit.look)
    return adapter.load(out, backbone=target), read_run(out).fit


def _teacher(about: Mapping[str, Any], store: Store, kit: Kit) -> Method:
    """The teacher from its run's folder: trained where it is not there, waited for where another process does that."""
    recipe, folder = Recipe.parse(about["teacher"], "recipe"), store.run_folder(about["from"])
    while not adapter.is_whole(folder):
        with store.lock(about["from"]) as mine:
            if mine:
                learn(recipe, folder, kit)
        if not mine:
            time.sleep(POLL)
    return adapter.load(folder, backbone=kit.backbone(recipe))
