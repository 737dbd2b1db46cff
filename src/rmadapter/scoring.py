"""A run folder becomes scores, and a folder of tables and pictures that explain them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rmadapter import adapter, provenance, report
from rmadapter.calibration import NoTemperatureError, fit_temperature
from rmadapter.data.check import Broken, find_broken, table
from rmadapter.data.task import Split, Task
from rmadapter.errors import DataError
from rmadapter.evaluation import Scores, logits, score
from rmadapter.files import new_folder, write_json, write_text
from rmadapter.method import Method
from rmadapter.progress import counter
from rmadapter.protocols import Classes
from rmadapter.run import CARRIED, SKIPPED, cut, device_of, read_run, task_of

EVALUATION = "evaluation"
"""The folder inside a run's; it holds a folder for each task and choice of classes."""


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate_run`` found."""

    scores: Scores
    task: Task
    """Cut to the classes that were evaluated."""
    chosen: Classes
    """Which those are."""
    folder: Path
    """Where the files are."""
    split: Literal["test", "val"] = "test"
    """What was scored: test items, or the validation items that stand in their place in a run with test_on = val."""
    fitted_on: int | None = None
    """Validation images that a temperature was fitted on just now."""
    ece_without: float | None = None
    """ECE on the same test images without a temperature, percent; None: there is none."""
    broken: tuple[Broken, ...] = ()
    """Images that were not scored, since they are lost or cannot be read."""
    names: str | None = None
    """Of a run that was carried over from some classes: whether it knew the names of the others (``known``), or not."""

    @property
    def title(self) -> str:
        """Task and choice of classes, ``pictograms/food base``; what was scored, if not test items; and ``names``."""
        said = [f"{self.task.name} {self.chosen}"]
        if self.split != "test":
            said.append(self.split)
        if self.names is not None:
            said.append("names known" if self.names == "known" else self.names)
        return ", ".join(said)

    def summary(self) -> dict[str, float]:
        """The scores' summary, what a temperature was fitted on and changed, and how many images were left out."""
        extra = {
            "fitted_on": self.fitted_on,
            "ece_without_temperature": self.ece_without,
            "left_out": len(self.broken) or None,
        }
        return {**self.scores.summary(), **{name: value for name, value in extra.items() if value is not None}}


def evaluate_run(
    folder: Path,
    *,
    data: str | None = None,
    classes: Classes | None = None,
    temperature: bool = False,
    skip_broken: bool = False,
    plots: bool = True,
    device: str = "auto",
) -> Evaluation:
    """Test scores of a run, also written into its ``adapter_config.json`` and, with what explains them, beside it.

    Of a run with ``test_on = "val"`` they are scores of validation items, and are called so.

    Args:
        data: another task or folder, or the place where the run's own data are now; None: the run's own.
        classes: None: those that it was trained on (all of another task).
        temperature: first fit one on the run's own validation items, and record it for these classes; where none is
            best there is a warning, and confidences stay as they are.
        skip_broken: leave out images that are lost or cannot be read, with a warning for each; those that were to be
            scored are listed.
        plots: draw pictures; without, those of earlier scores are removed.

    Raises:
        UserError: for a folder or data that do not fit, nothing to fit a temperature on, a file that cannot be written.
    """
    task, own = task_of(folder, data, lost=skip_broken)
    if not own and task.root is not None:  # folders of one name are many; no score may take another's place
        task = replace(task, name=f"{task.name}-{task.sha256()[:8]}")
    recipe = read_run(folder).recipe
    chosen: Classes = classes or (recipe.classes if own else "all")
    part, broken = cut(task, chosen), tuple[Broken, ...]()
    if not part.test_items:
        raise DataError(
            f"{task.name} has no {recipe.test_on if own else 'test'} images", remedy="name others to score, with --data"
        )
    if skip_broken:
        test, broken = _readable(part.test)
        part = replace(part, test_items=test.items)
        if not len(test):
            raise DataError(f"none of the {len(broken)} images can be read", got=broken[0].path, remedy="restore them")
    method = adapter.load(folder, device=device_of(device))
    fitted_on = None
    if temperature:
        home = cut(task if own else task_of(folder, None, lost=skip_broken)[0], recipe.classes)
        _check_bound(method, home)
        val = _readable(home.val)[0] if skip_broken else home.val
        try:
            method.temperature, fitted_on = _fit(method, home.template, val), len(val)
        except NoTemperatureError as error:
            warnings.warn(f"{error.problem} ({error.got}): confidences stay as they are", stacklevel=2)
        else:
            adapter.record_temperature(folder, method.temperature)
    with counter("evaluating", len(part.test)) as count:
        predictor = method.predictor(part.classes, part.template)
        found = logits(predictor, part.test, progress=count)
    scores = score(found, part.test.labels, predictor.temperature)
    without = None if predictor.temperature == 1 else score(found, part.test.labels).ece
    out = folder / EVALUATION / f"{task.name or 'task'}-{chosen}".replace("/", "-")
    names = recipe.method_settings.get("novel") if (folder / CARRIED).exists() and recipe.classes != "all" else None
    evaluation = Evaluation(
        scores, part, chosen, out, recipe.test_on if own else "test", fitted_on, without, broken, names
    )
    _write(evaluation, folder, plots, provenance.machine(str(method.backbone.device)))
    return evaluation


def _readable(split: Split) -> tuple[Split, tuple[Broken, ...]]:
    """A split without the images that are lost or cannot be read, and these; each is said."""
    with counter("checking images", len(split)) as count:
        broken = find_broken(split, progress=count)
    for path, reason in broken:
        warnings.warn(f"left out: {path} {reason}", stacklevel=3)
    names = {one.path for one in broken}
    return replace(split, items=tuple(item for item in split if item.picture.name not in names)), tuple(broken)


def _check_bound(method: Method, home: Task) -> None:
    """A temperature belongs to all classes of an adapter, and is fitted on what it learned from."""
    if method.classes != home.classes:
        raise DataError(
            "no temperature can be fitted, since the adapter is bound to more classes than it learned from",
            got=f"{len(method.classes)} classes, {len(home.classes)} of them learned from",
            remedy="leave out --temperature",
        )


def _fit(method: Method, template: str, val: Split) -> float:
    """A temperature from validation items: no test item comes here. Raises DataError where there are none."""
    if not len(val):
        raise DataError(
            f"{val.task} has no validation items, and a temperature is never fitted on test items",
            remedy="train on a folder with a val split (more images a class make one), or leave out --temperature",
        )
    with counter("fitting a temperature", len(val)) as count:
        found = logits(method.predictor(val.classes, template), val, progress=count)
    return fit_temperature(found.double().numpy(), val.labels)


def _write(evaluation: Evaluation, run: Path, plots: bool, machine: dict[str, Any]) -> None:
    """The folder of an evaluation, and its summary in the adapter's config."""
    task, scores, recipe = evaluation.task, evaluation.scores, read_run(run).recipe
    out = new_folder(evaluation.folder, resume=True)
    report.write_tables(scores, task.test, out)
    report.remove_pictures(out)
    (out / SKIPPED).unlink(missing_ok=True)
    if evaluation.broken:
        write_text(out / SKIPPED, table(evaluation.broken))
    if plots:
        report.write_pictures(scores, task.test, f"{task.name} {evaluation.chosen}, {evaluation.split}", out)
    about = {
        "task": task.name,
        "classes_chosen": evaluation.chosen,
        "split": evaluation.split,
        "split_sha256": task.sha256(),
        **({} if evaluation.names is None else {"novel_names": evaluation.names}),
        "template": task.template,
        "method": recipe.method,
        "backbone": recipe.backbone,
        "seed": recipe.seed,
        "split_seed": recipe.split_seed,
        "versions": provenance.versions(),
        "machine": machine,
    }
    write_json(out / "scores.json", {**evaluation.summary(), **about})
    left_out = {"left_out": len(evaluation.broken)} if evaluation.broken else {}
    adapter.record(run, evaluation.title, {**scores.summary(), **left_out, "machine": machine})
