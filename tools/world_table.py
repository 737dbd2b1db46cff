"""Does the small world behave like the real one? Five ways to learn the base classes of each theme, compared.

    python tools/world_table.py --out build/world.jsonl [--backbone pictoclip-s] [--themes animals food] [--seeds 1 2 3]

A line of the file is one (theme, seed, way); lines that are there are not computed again, so the run can be stopped
and started, and two can share the work by theme. Then it prints Markdown tables: base, novel and HM on test items, and
base accuracy on another family of drawings; means over themes, ± standard error over seeds, then each theme. Needs
scikit-learn.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rmadapter as ra
from rmadapter.backbones import Backbone
from rmadapter.backbones.clip import TowerName
from rmadapter.data import Item, Split, Task, task_names
from rmadapter.method import Method
from rmadapter.methods.linear_probe import LinearProbe
from rmadapter.methods.parts.bottleneck import upper_blocks
from rmadapter.methods.zero_shot import ZeroShot

SHOTS = 16
EPOCHS = 8
"""Of every way that takes steps, as the table in docs/experiments has them."""
PLAIN = {"reconstruction_image": 0, "reconstruction_text": 0, "consistency_image": 0, "consistency_text": 0}
Score = Callable[[Split], float]


class FineTuning(ZeroShot):
    """The upper blocks of both towers of a copy train, with nothing that holds them."""

    def build(self) -> None:
        """Register the blocks of the backbone, which must be a copy, as what trains."""
        blocks = [self.backbone.tower(name).block(i) for name in ("image", "text") for i in self.touches(name)]
        self.blocks = nn.ModuleList(blocks).requires_grad_(True)

    def touches(self, tower: TowerName) -> range:
        """The same blocks as RMAdapter's default."""
        first, last = upper_blocks(self.backbone.tower(tower).depth)
        return range(first - 1, last)


def accuracy(method: Method) -> Score:
    """Accuracy of a method on a split, among the split's classes."""
    return lambda split: ra.evaluate(method.predictor(split.classes), split).accuracy


def zero_shot(backbone: Backbone, task: Task, seed: int) -> Score:
    """The frozen model with the task's prompt."""
    method = ra.ZeroShot(backbone)
    method.template = task.template
    return accuracy(method)


def trained(build: Callable[[Backbone, int], Method], **train: Any) -> Callable[[Backbone, Task, int], Score]:
    """A method fitted on the base classes."""

    def way(backbone: Backbone, task: Task, seed: int) -> Score:
        method = build(backbone, seed)
        ra.fit(method, task.base().shots(SHOTS, seed), show_progress=False, **{"epochs": EPOCHS, "seed": seed, **train})
        return accuracy(method)

    return way


def linear_probe(backbone: Backbone, task: Task, seed: int) -> Score:
    """The linear probe, which knows no novel class."""
    base = task.base().shots(SHOTS, seed)
    method = LinearProbe(backbone)
    ra.fit(method, base, show_progress=False)
    score = accuracy(method)
    return lambda split: score(split) if split.classes == base.classes else float("nan")


WAYS: dict[str, Callable[[Backbone, Task, int], Score]] = {
    "zero-shot": zero_shot,
    "linear probe": linear_probe,
    "RMAdapter": trained(lambda backbone, seed: ra.RMAdapter(backbone, seed=seed)),
    "RMAdapter, adaptation alone": trained(lambda backbone, seed: ra.RMAdapter(backbone, seed=seed, **PLAIN)),
    "fine-tuning of the upper blocks": trained(
        lambda backbone, seed: FineTuning(copy.deepcopy(backbone), seed=seed),
        optimizer="adamw",
        lr=3e-4,
        warmup_epochs=0,
        weight_decay=1e-3,
        schedule="cosine_by_step",
        augment="none",
    ),
}


def other_family(task: Task) -> Split:
    """Test items of the base classes in the other family's drawings, under the base classes' labels."""
    base, other = task.base(), ra.load_task(f"{task.name}/fxemoji")
    label = {name: index for index, name in enumerate(base.classes)}
    items = [
        Item(label[other.classes[item.label]], item.picture)
        for item in other.test
        if other.classes[item.label] in label
    ]
    return Split(tuple(items), base.classes, task.name, "fxemoji")


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Compute what is missing; every line of the file."""
    file: Path = arguments.out
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["theme"], row["seed"], row["way"]) for row in rows}
    backbone = ra.load_backbone(arguments.backbone)
    for theme in arguments.themes:
        task = ra.load_task(f"pictograms/{theme}")
        for seed in arguments.seeds:
            for name in WAYS:
                if (theme, seed, name) in done or (name == "zero-shot" and seed != arguments.seeds[0]):
                    continue
                begun = time.perf_counter()
                score = WAYS[name](backbone, task, seed)
                found = {"base": score(task.base().test), "novel": score(task.novel().test)}
                row = {"theme": theme, "seed": seed, "way": name, **found, "other": score(other_family(task))}
                row["seconds"] = round(time.perf_counter() - begun, 1)
                rows.append(row)
                with file.open("a") as opened:
                    opened.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over themes, ± standard error over seeds; HM of the means."""
    lines = ["| | base | novel | HM | base, other family |", "| --- | --- | --- | --- | --- |"]
    for name in WAYS:
        mine = [row for row in rows if row["way"] == name]
        seeds = sorted({row["seed"] for row in mine})
        if not mine:
            continue
        means = {
            key: [np.mean([r[key] for r in mine if r["seed"] == s]) for s in seeds]
            for key in ("base", "novel", "other")
        }
        means["hm"] = [ra.harmonic_mean(b, n) for b, n in zip(means["base"], means["novel"], strict=True)]
        cells = [_cell(means[key]) for key in ("base", "novel", "hm", "other")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_theme(rows: list[dict[str, Any]]) -> str:
    """Base / novel / base of the other family for each theme, means over seeds."""
    lines = [f"| base / novel / other | {' | '.join(WAYS)} |", "| --- |" + " --- |" * len(WAYS)]
    for theme in sorted({row["theme"] for row in rows}):
        cells = []
        for name in WAYS:
            mine = [row for row in rows if row["theme"] == theme and row["way"] == name]
            cells.append(" / ".join(_cell([np.mean([row[key] for row in mine])]) for key in ("base", "novel", "other")))
        lines.append(f"| {theme} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[Any]) -> str:
    if np.isnan(values[0]):
        return "–"
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
    return f"{np.mean(values):.1f}" + (f" ± {error:.1f}" if error is not None else "")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="pictoclip-s")
    themes = [name.partition("/")[2] for name in task_names() if not name.endswith("wide")]
    parser.add_argument("--themes", nargs="+", default=themes)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = run(arguments)
    print(table(rows), by_theme(rows), sep="\n\n")


if __name__ == "__main__":
    main()
