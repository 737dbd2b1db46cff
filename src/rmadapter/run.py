"""Where the parts meet: a recipe becomes a run folder, and a run folder becomes scores and predictions."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rmadapter import adapter, provenance
from rmadapter.backbones import load_backbone
from rmadapter.data import load_task
from rmadapter.data.images import is_image
from rmadapter.data.readers import read_manifest
from rmadapter.data.task import Task
from rmadapter.errors import AdapterError, DataError, UserError
from rmadapter.evaluation import Scores, evaluate, harmonic_mean
from rmadapter.files import new_folder, write_json
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.methods.zero_shot import ZeroShot
from rmadapter.predictor import Prediction
from rmadapter.progress import counter
from rmadapter.recipe import Recipe, resolve
from rmadapter.report import Shown, contact_sheet
from rmadapter.train import Fit, fit

RUN, TASK, SCORES = "run.json", "task.json", "scores.json"
Classes = Literal["base", "novel", "all"]


def device_of(name: str) -> str:
    """'auto' to cuda, mps or cpu, whichever is there; any other name is taken as it is."""
    import torch

    there = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()] + ["cpu"]
    if name == "auto":
        return there[0]
    if name.partition(":")[0] not in there:
        raise UserError(f"this machine has no device {name!r}", allowed=", ".join(["auto", *there]))
    return name


def load_recipe_task(recipe: Recipe) -> Task:
    """The whole task of a recipe, before it is cut to classes and shots."""
    return load_task(recipe.data, split_seed=recipe.split_seed, template=recipe.template)


def train(recipe: Recipe, out: Path, *, resume: bool = False, device: str = "auto", show_progress: bool = True) -> Fit:
    """Run a recipe into a folder: adapter, log, split, and ``run.json`` with the recipe and what it was computed with.

    Raises:
        UserError: when the folder is not empty (unless ``resume``), or was started with another recipe.
    """
    new_folder(out, resume)
    begun = resume and (out / RUN).exists()
    if begun:
        record = _check_same(_read_json(out / RUN), recipe, out)
        if "fit" in record:
            return Fit(**record["fit"])
    task = task_of(out, None) if begun else load_recipe_task(recipe)
    backbone = load_backbone(recipe.backbone, recipe.pretrained, device=device_of(device))
    method = method_class(recipe.method)(backbone, seed=recipe.seed, **recipe.method_settings)
    folder = str(Path(recipe.data).resolve()) if Path(recipe.data).is_dir() else None
    write_json(out / TASK, {"data": folder, **task.manifest()})
    record = {"recipe": recipe.plain(), "versions": provenance.versions(), "machine": provenance.machine()}
    write_json(out / RUN, record)
    shots = cut(task, recipe.classes).shots(recipe.shots, recipe.seed)
    result = fit(method, shots, out, resume=True, show_progress=show_progress, **recipe.train.model_dump())
    write_json(out / RUN, {**record, "fit": asdict(result)})
    return result


def _check_same(record: dict[str, Any], recipe: Recipe, out: Path) -> dict[str, Any]:
    """The record of a run that is to be gone on with. Raises AdapterError when its recipe is another."""
    started, wanted = record["recipe"], recipe.plain()
    changed = [key for key in wanted if started.get(key) != wanted[key]]
    if changed:
        raise AdapterError(
            f"{out} was started with another recipe",
            got=f"different: {', '.join(changed)}",
            remedy="resume without other flags, or name another folder",
        )
    return record


def cut(task: Task, classes: Classes) -> Task:
    """The task's base, novel or all classes."""
    return task if classes == "all" else task.base() if classes == "base" else task.novel()


def read_run(folder: Path) -> Recipe:
    """The recipe that a run folder was made from."""
    return Recipe.parse(_read_json(folder / RUN)["recipe"], f"{folder / RUN}")


def task_of(folder: Path, data: str | None) -> Task:
    """The task that a run was trained on, with its very split; or another one, where ``data`` names it."""
    recipe = read_run(folder)
    content = _read_json(folder / TASK)
    own = content["data"]
    if data is not None and data != recipe.data and not (own and Path(data).resolve() == Path(own)):
        return load_task(data, split_seed=recipe.split_seed)
    if own is not None:
        return read_manifest(content, Path(own))
    task = load_recipe_task(recipe)
    if task.manifest() != {key: value for key, value in content.items() if key != "data"}:
        raise DataError(f"task {recipe.data!r} is not what {folder} was trained on", remedy="train again")
    return task


def evaluate_run(
    folder: Path, *, data: str | None = None, classes: Classes | None = None, device: str = "auto"
) -> Scores:
    """Test scores of a run, also written to ``scores.json`` in its folder.

    Args:
        data: another task or folder; None: the run's own.
        classes: None: those that it was trained on (all of another task).
    """
    chosen: Classes = classes or ("all" if data else read_run(folder).classes)
    task = cut(task_of(folder, data), chosen)
    method = adapter.load(folder, device=device_of(device))
    with counter("evaluating", len(task.test)) as count:
        scores = evaluate(method.predictor(task.classes, task.template), task.test, progress=count)
    file = folder / SCORES
    known = _read_json(file) if file.exists() else {}
    summary = {key: value for key, value in asdict(scores).items() if key not in ("predicted", "confidence")}
    write_json(file, {**known, f"{data or read_run(folder).data} {chosen}": summary})
    return scores


def predict_run(
    folder: Path, images: Sequence[Path], *, classes: Sequence[str] | None = None, top: int = 5, device: str = "auto"
) -> Iterator[Prediction]:
    """Predictions of a run for files and folders, one after another.

    Args:
        images: files, or folders that are searched for images.
        classes: names to choose from; None: those that it was trained on.
    """
    files = list(find_images(images))
    method = adapter.load(folder, device=device_of(device))
    yield from method.predictor(classes or method.classes).stream(files, top)


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given, and the images below folders in sorted order. Raises DataError for a path that holds none."""
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file))
            if not found:
                raise DataError(f"{path} has no images in it")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise DataError(f"{path} does not exist")


def demo(out: Path, *, seed: int = 1, show_progress: bool = True) -> dict[str, Any]:
    """Zero-shot and RMAdapter on ``pictograms/animals``, 16 shots, base to novel: ``summary.json`` and a contact sheet.

    Returns:
        {"zero_shot": {"base", "novel", "hm"}, "rmadapter": {…}, "seconds", …}, scores in percent.
    """
    started = time.perf_counter()
    new_folder(out)
    recipe = resolve("rmadapter/pictograms", {"classes": "base", "seed": seed})
    result = train(recipe, out / "run", show_progress=show_progress)
    task = load_recipe_task(recipe)
    adapted = adapter.load(out / "run")
    zero_shot: Method = ZeroShot(adapted.backbone)
    zero_shot.template = task.template
    scores = {method.name: base_to_novel(method, task, show_progress) for method in (zero_shot, adapted)}
    summary: dict[str, Any] = {
        **{name: {**values, "hm": harmonic_mean(values["base"], values["novel"])} for name, values in scores.items()},
        "seconds": round(time.perf_counter() - started, 1),
        "training_seconds": round(result.seconds, 1),
        "task": recipe.data,
        "shots": recipe.shots,
        "seed": seed,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    write_json(out / "summary.json", summary)
    _sheet(adapted, task, out / "contact_sheet.png")
    return summary


def base_to_novel(method: Method, task: Task, show_progress: bool = True) -> dict[str, float]:
    """Test accuracy on the base and on the novel classes, each among its own."""
    found = {}
    for name, part in (("base", task.base()), ("novel", task.novel())):
        with counter(f"{method.name}, {name}", len(part.test), show_progress) as count:
            found[name] = evaluate(method.predictor(part.classes), part.test, progress=count).accuracy
    return found


def _sheet(method: Method, task: Task, path: Path, count: int = 24) -> None:
    """A random draw of test images (seed 0) of base and of novel classes, each predicted among its own half."""
    tiles: list[Shown] = []
    right: list[str] = []
    for name, part in (("base", task.base()), ("novel", task.novel())):
        items = random.Random(0).sample(part.test.items, min(count, len(part.test)))
        images = [item.picture.open() for item in items]
        predicted = method.predictor(part.classes).predict(images, top=1)
        found = [Shown(i, p.label, part.classes[it.label]) for i, p, it in zip(images, predicted, items, strict=True)]
        right.append(f"{name} {sum(tile.predicted == tile.true for tile in found)} of {len(found)}")
        tiles += found
    contact_sheet(tiles, f"{task.name}, test images that {method.name} names right: {', '.join(right)}", path)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise AdapterError(f"{file} is missing", remedy="name a folder that rmadapter train wrote") from None
    except ValueError as error:
        raise AdapterError(f"{file} is damaged", got=str(error)) from error
