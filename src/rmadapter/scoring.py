"""A run folder becomes scores."""

from __future__ import annotations

from pathlib import Path

from rmadapter import adapter, provenance
from rmadapter.evaluation import Scores, evaluate
from rmadapter.progress import counter
from rmadapter.run import Classes, cut, device_of, read_run, task_of


def evaluate_run(
    folder: Path, *, data: str | None = None, classes: Classes | None = None, device: str = "auto"
) -> Scores:
    """Test scores of a run, also written into its ``adapter_config.json``.

    Args:
        data: another task or folder, or the place where the run's own data are now; None: the run's own.
        classes: None: those that it was trained on (all of another task).
    """
    task, own = task_of(folder, data)
    chosen: Classes = classes or (read_run(folder).recipe.classes if own else "all")
    part = cut(task, chosen)
    method = adapter.load(folder, device=device_of(device))
    with counter("evaluating", len(part.test)) as count:
        scores = evaluate(method.predictor(part.classes, part.template), part.test, progress=count)
    entry = {**scores.summary(), "machine": provenance.machine(str(method.backbone.device))}
    adapter.record(folder, f"{task.name} {chosen}", entry)
    return scores
