"""The demo: RMAdapter beside zero-shot CLIP on a task inside the package."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rmadapter import adapter, provenance
from rmadapter.data.task import Task
from rmadapter.evaluation import evaluate, harmonic_mean
from rmadapter.files import new_folder, write_json
from rmadapter.method import Method
from rmadapter.methods.zero_shot import ZeroShot
from rmadapter.progress import counter
from rmadapter.recipe import resolve
from rmadapter.report import Shown, contact_sheet
from rmadapter.run import device_of, load_recipe_task, train


def run(out: Path, *, seed: int = 1, device: str = "auto", show_progress: bool = True) -> dict[str, Any]:
    """Zero-shot and RMAdapter on ``pictograms/animals``, 16 shots, base to novel: ``summary.json`` and a contact sheet.

    Returns:
        {"zero_shot": {"base", "novel", "hm"}, "rmadapter": {…}, "seconds", …}, scores in percent.
    """
    started = time.perf_counter()
    new_folder(out)
    recipe = resolve("rmadapter/pictograms", {"classes": "base", "seed": seed})
    result = train(recipe, out / "run", device=device, show_progress=show_progress)
    task = load_recipe_task(recipe)
    adapted = adapter.load(out / "run", device=device_of(device))
    zero_shot: Method = ZeroShot(adapted.backbone)
    zero_shot.template = task.template
    scores = {method.name: base_to_novel(method, task, show_progress) for method in (zero_shot, adapted)}
    summary: dict[str, Any] = {
        **{name: {**values, "hm": harmonic_mean(values["base"], values["novel"])} for name, values in scores.items()},
        "seconds": round(time.perf_counter() - started, 1),
        "training_seconds": round(result.seconds, 1) if result else None,
        "task": recipe.data,
        "shots": recipe.shots,
        "seed": seed,
        "versions": provenance.versions(),
        "machine": provenance.machine(str(adapted.backbone.device)),
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
        true = [part.classes[item.label] for item in items]
        found = [Shown(i, p.classes[0], name) for i, p, name in zip(images, predicted, true, strict=True)]
        right.append(f"{name} {sum(tile.predicted == tile.true for tile in found)} of {len(found)}")
        tiles += found
    contact_sheet(tiles, f"{task.name}, test images that {method.name} names right: {', '.join(right)}", path)
