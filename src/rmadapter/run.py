"""Where the parts meet: a recipe becomes a run folder, which knows its task and its split."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rmadapter import adapter, checkpoint, provenance
from rmadapter.backbones import Backbone, load_backbone
from rmadapter.data import load_task, public
from rmadapter.data.check import Broken, find_broken, leave_out, table
from rmadapter.data.readers import find, read_manifest
from rmadapter.data.task import ImageFile, Manifest, Task
from rmadapter.errors import AdapterError, DataError, UserError
from rmadapter.files import LOCK, locked, new_folder, write_json, write_text
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.progress import counter
from rmadapter.protocols import Classes
from rmadapter.recipe import Recipe
from rmadapter.settings import Settings
from rmadapter.train import FIT, SHOTS, STEPS, Fit, fit
from rmadapter.views import SharedRows

RUN, TASK, SKIPPED = "run.json", "task.json", "skipped.csv"
CARRIED = "transfer.json"
"""Of a run that was carried over from another backbone (``carrying``)."""


class Record(Settings):
    """``run.json``."""

    recipe: Recipe
    """Every setting."""
    versions: dict[str, str]
    """Of Python and the main packages."""
    machine: dict[str, Any]
    """Kind, threads, device."""
    resumed: tuple[str, ...] = ()
    """What was not as before when it was gone on with, such as the number of threads: its last bits may differ."""
    fit: dict[str, Any] | None = None
    """What training did, by all processes that it took; none while it is not finished."""


def device_of(name: str) -> str:
    """'auto' to cuda, mps or cpu, whichever is there. Raises UserError for a device that is not."""
    import torch

    kinds = {"cuda": torch.cuda, "mps": torch.mps, "cpu": torch.cpu}
    there = {kind: module.device_count() for kind, module in kinds.items() if module.is_available()}
    if name == "auto":
        return next(iter(there))
    kind, _, index = name.partition(":")
    if kind not in there or (index and not (index.isdecimal() and int(index) < there[kind])) or name.endswith(":"):
        raise UserError(f"this machine has no device {name!r}", allowed=", ".join(["auto", *there]))
    return name


def load_recipe_task(recipe: Recipe) -> Task:
    """The whole task of a recipe, before it is cut to classes and shots."""
    task = load_task(recipe.data, split_seed=recipe.split_seed, template=recipe.template)
    return task.without_test() if recipe.test_on == "val" else task


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    show_progress: bool = True,
    backbone: Backbone | None = None,
    task: Task | None = None,
    compared: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    shared: SharedRows | None = None,
) -> Fit | None:
    """Run a recipe into a folder: adapter, log, split, and ``run.json`` with the recipe and what it was computed with.

    Args:
        recipe: all of it.
        out: new or empty, unless ``resume``.
        resume: go on with the run in ``out``, if there is one.
        device: for a backbone that is loaded here.
        show_progress: show bars, where standard error is a terminal.
        backbone, task: the recipe's own, where they are loaded already.
        compared: what of a recipe must be the same to go on with a run; all of it, unless the caller knows better.
        shared: see ``fit``.

    Returns:
        What training did, or None when the run in ``out`` was finished already.

    Raises:
        UserError: when the folder is not empty (unless ``resume``), or was started with another recipe.
    """
    if (out / CARRIED).exists() and not adapter.is_whole(out):
        raise AdapterError(
            f"{out} holds a run that was being carried over from another", remedy="give its rmadapter transfer again"
        )
    resume = resume and (out / RUN).exists()  # what was killed before it wrote anything starts
    if resume:
        moved = None if task is not None else _moved(recipe, out)
        started = _check_same(recipe, out, compared, elsewhere=moved is not None)
        task = task or moved
        if adapter.is_whole(out):
            (out / checkpoint.FILE).unlink(missing_ok=True)
            _finish(out, started)  # a kill may have come just before
            return None
    # A kill between the files of a new run leaves one without its split: it is drawn again, the same.
    new = not resume or not (out / TASK).exists()
    loaded = task is not None
    if task is None:
        task = load_recipe_task(recipe) if new else task_of(out, None)[0]
    if not task.train_items:
        raise DataError(f"{recipe.data} has nothing to learn from", remedy="test a run on it: evaluate RUN --data …")
    with _held(out, resume):  # before anything that takes long
        task, broken = _prepare(task, recipe, show_progress) if new and not loaded else (task, None)
        backbone = backbone or load_backbone(recipe.backbone, recipe.pretrained, device=device_of(device))
        method = method_class(recipe.method)(backbone, seed=recipe.seed, **recipe.method_settings)
        shots = cut(task, recipe.classes).shots(recipe.shots, recipe.seed)
        record = Record(recipe=recipe, versions=provenance.versions(), machine=provenance.machine(str(backbone.device)))
        if resume:
            record = record.model_copy(update={"resumed": (*started.resumed, *_changes(started, record))})
        _write_start(out, record, task, broken)
        result = _learn(method, shots, out, recipe, show_progress, shared)
        _finish(out, record)
    return result


@contextmanager
def _held(out: Path, resume: bool) -> Iterator[None]:
    """The folder, made ready to write into, while no other process trains into it."""
    if not resume:
        new_folder(out, instead=", or go on with its run by --resume")
    with locked(out / LOCK, wait=False) as mine:
        if not mine:
            raise UserError(f"another process trains into {out}", remedy="wait for it, or name another folder")
        yield


def _learn(
    method: Method, shots: Task, out: Path, recipe: Recipe, show_progress: bool, shared: SharedRows | None
) -> Fit:
    """``fit``; a mistake that is found before anything is learned leaves the folder free for the corrected command."""
    try:
        settings = recipe.train.model_dump()
        return fit(method, shots, out, resume=True, show_progress=show_progress, shared=shared, **settings)
    except UserError:
        if not any((out / name).exists() for name in (STEPS, SHOTS)):  # the latter: of what takes no steps
            for name in (TASK, RUN, SKIPPED):
                (out / name).unlink(missing_ok=True)
        raise


def _finish(out: Path, record: Record) -> None:
    """What training did, from the file that ``fit`` left, into the record."""
    if (out / FIT).exists():
        done = json.loads((out / FIT).read_text(encoding="utf-8"))
        write_json(out / RUN, record.model_copy(update={"fit": done}).plain())
        (out / FIT).unlink()


def _prepare(task: Task, recipe: Recipe, show_progress: bool) -> tuple[Task, list[Broken] | None]:
    """The task that a new run starts from, and the images that were left out of it; says what a user should know."""
    broken = None
    if recipe.skip_broken:
        splits = (task.train, task.val, task.test)
        with counter("checking images", sum(map(len, splits)), show_progress) as count:
            broken = find_broken(*splits, progress=count)
        task = leave_out(task, broken)
        for path, reason in broken:
            warnings.warn(f"left out: {path} {reason}", stacklevel=3)
    scarce = cut(task, recipe.classes).scarce(recipe.shots)
    if scarce:
        warnings.warn(f"{scarce}: all of them are taken", stacklevel=3)
        task = replace(task, note=f"{task.note}; {scarce}")
    return task, broken


def _write_start(out: Path, record: Record, task: Task, broken: list[Broken] | None) -> None:
    write_json(out / RUN, record.plain())
    if broken is not None:
        write_text(out / SKIPPED, table(broken))
    write_json(out / TASK, task.manifest(sizes=True).plain())  # last: where it is missing, all of this is done again


def read_run(folder: Path) -> Record:
    """The record of a run folder. Raises AdapterError where there is none."""
    if not (folder / RUN).is_file():
        raise AdapterError(f"{folder} holds no run", remedy="name a folder that rmadapter train wrote")
    return Record.read(folder / RUN, AdapterError)


def _moved(recipe: Recipe, out: Path) -> Task | None:
    """The task of a run to go on with, whose data are elsewhere now; None: they are where they were, or are others."""
    if recipe.data == read_run(out).recipe.data or not (out / TASK).exists():
        return None
    task, own = task_of(out, recipe.data)
    return task if own else None


def _check_same(
    recipe: Recipe, out: Path, compared: Callable[[dict[str, Any]], Mapping[str, Any]], elsewhere: bool
) -> Record:
    """The record of a run to go on with. Raises AdapterError when there is none, or its recipe is another.

    Args:
        elsewhere: its data have moved to where the recipe says.
    """
    record = read_run(out)
    before = record.recipe.model_copy(update={"data": recipe.data}) if elsewhere else record.recipe
    started, wanted = compared(before.plain()), compared(recipe.plain())
    changed = [difference for key in wanted for difference in _differences(key, started[key], wanted[key])]
    if any(each.startswith("--seed ") for each in changed):  # that of training follows it, and would say it twice
        changed = [each for each in changed if not each.startswith("--train.seed ")]
    if changed:
        raise AdapterError(
            f"{out} was started with another recipe",
            got="; ".join(changed),
            remedy="resume without other flags, or name another folder",
        )
    return record


def _differences(key: str, started: Any, wanted: Any) -> list[str]:
    """'--method.rank was 32, and is 4 now': a key's value, or those below it, as flags name them."""
    if isinstance(started, Mapping) and isinstance(wanted, Mapping):
        table = key.removesuffix("_settings")
        inner = dict.fromkeys([*started, *wanted])
        return [d for name in inner for d in _differences(f"{table}.{name}", started.get(name), wanted.get(name))]
    if started == wanted:
        return []
    flag = f"--{key}".replace("_", "-")
    return [f"{flag} was {_typed(started)}, and is {_typed(wanted)} now"]


def _typed(value: Any) -> str:
    """As the command line takes it."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _changes(started: Record, now: Record) -> list[str]:
    """What may cost a resumed run its last bits; says so."""
    before, after = ({**record.versions, **record.machine} for record in (started, now))
    changed = [
        f"{key} {before[key]} is now {after[key]}" for key in before if key in after and before[key] != after[key]
    ]
    if changed:
        warnings.warn(f"resumed, but {', '.join(changed)}: the last bits may differ", stacklevel=3)
    return changed


def cut(task: Task, classes: Classes) -> Task:
    """The task's base, novel or all classes."""
    return task if classes == "all" else task.base() if classes == "base" else task.novel()


def task_of(folder: Path, data: str | None, lost: bool = False) -> tuple[Task, bool]:
    """The task that a run was trained on, with its very split, and True; or another one that ``data`` names, and False.

    The run's own data may have moved: a folder that holds all images of the run's split, as large as they were, is
    taken for it, and so is a list or a split file that names them all with the same classes. Of a public data set
    ``RMADAPTER_DATA`` says where it is now; without, it is where it was.

    Args:
        lost: images of the split that are gone are named by their old path, as long as most of them are there; without
            it they are an error.

    Raises:
        DataError: when a folder holds some of them only, since a fresh split of it could test on what was learned; or
            when other data test on what was learned.
    """
    recipe = read_run(folder).recipe
    manifest = Manifest.read(folder / TASK, AdapterError)
    read = partial(_own, manifest, lost=lost)
    if manifest.data is None:
        if data is not None and data != recipe.data:
            return load_task(data, split_seed=recipe.split_seed, template=recipe.template), False
        task = load_recipe_task(recipe)
        if task.manifest().model_copy(update={"note": manifest.note}) != manifest:
            raise DataError(f"task {recipe.data!r} is not what {folder} was trained on", remedy="train again")
        return task, True
    if data in (None, recipe.data) and (images := public.place(recipe.data)) is not None:
        return read(images), True
    if data is None:
        return read(Path(manifest.data)), True
    here = Path(data)
    if here.is_dir():
        found, every = len(_there(manifest, here)), len(manifest.sized())
        if found == every or (lost and (2 * found > every or _at_home(manifest, here))):
            return read(here), True
        if found:
            raise DataError(
                f"{here} holds {found} of the {every} images that {folder} was split from",
                remedy="evaluate on the whole folder, or on other images",
            )
    if lost and here.is_file() and _at_home(manifest, here.parent) and here.name == Path(recipe.data).name:
        return read(here.parent), True
    task = load_task(data, split_seed=recipe.split_seed, template=recipe.template)
    everything = len(manifest.sized())
    if here.is_file() and _names_all(task, manifest) and len(_there(manifest, here.parent, listed=True)) == everything:
        return read(here.parent), True
    return _unlearned(task, data, manifest, folder), False


def _own(manifest: Manifest, folder: Path, lost: bool) -> Task:
    """The run's own task from a folder; says which images have changed since: others may have taken their names."""
    task, sizes = read_manifest(manifest, folder, lost), manifest.sized()
    files = [item.picture for part in (task.train, task.val, task.test) for item in part]
    now = {each.name: each.size for each in files if isinstance(each, ImageFile) and sizes[each.name] is not None}
    changed = [name for name, size in now.items() if size not in (sizes[name], -1)]
    if changed:
        warnings.warn(
            f"images that are not as large as when they were split: {len(changed)}, such as {changed[0]}; if they are "
            "others by the same names, the split no longer holds",
            stacklevel=3,
        )
    return task


def _at_home(manifest: Manifest, here: Path) -> bool:
    return str(here.resolve()) == manifest.data


def _there(manifest: Manifest, here: Path, listed: bool = False) -> list[str]:
    """A run's images that a folder has, by name; away from home also by size, since others may have the same names.

    A name that leads out of the folder says nothing of another one, unless a list there has it (``listed``).
    """
    there, home = [], _at_home(manifest, here)
    for name, size in manifest.sized().items():
        outside = Path(name).is_absolute() or ".." in Path(name).parts
        path = None if outside and not (home or listed) else find(here, name)
        if path is not None and (size is None or home or ImageFile(path, name).size == size):
            there.append(name)
    return there


def _names_all(task: Task, manifest: Manifest) -> bool:
    """Has a task all images of a run's, with the same classes?"""
    named = {item.picture.name: task.classes[item.label] for part in (task.train, task.val, task.test) for item in part}
    rows = (*manifest.train, *manifest.val, *manifest.test)
    return all(named.get(name) == manifest.classes[label] for name, label in rows)


def _unlearned(task: Task, data: str, manifest: Manifest, folder: Path) -> Task:
    """The task. Raises DataError where it tests on images that a run learned from or chose by."""
    sizes = manifest.sized()
    learned = {name: sizes[name] for name, _ in (*manifest.train, *manifest.val)}
    places = {path.resolve() for name in learned if (path := find(Path(str(manifest.data)), name)) is not None}
    seen = [
        item.picture.name
        for item in task.test
        if isinstance(item.picture, ImageFile)
        and (item.picture.path.resolve() in places or learned.get(item.picture.name, -2) in (None, item.picture.size))
    ]
    if seen:
        raise DataError(
            f"{data} tests on {len(seen)} images that {folder} learned from or chose by",
            got=f"{seen[0]}, …" if len(seen) > 1 else seen[0],
            remedy="evaluate on other images",
        )
    return task
