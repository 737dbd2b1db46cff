"""Choose TransMiter's settings for the embedded world on validation items of three themes; no test item is read.

    python tools/choose_transfer.py --to pictoclip-m animals food transport > table.md

The teacher of a theme is RMAdapter on pictoclip-s, 16 shots of the base classes (seed 1), with its shipped recipe. What
it does to logits is carried over with each candidate's settings, and scored on the validation items of base and novel
classes of the target. Prints a Markdown table: base / novel of each theme, and the means. About a minute a candidate on
one core, beside a few minutes a theme for the teacher.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import rmadapter as ra
from rmadapter import transfer
from rmadapter.backbones import Backbone
from rmadapter.data import Split, Task
from rmadapter.evaluation import score
from rmadapter.method import Method
from rmadapter.train import train_settings

# Settings of TransMiter, and changes to those of the supervised step (None: there is none).
CANDIDATES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    *(
        ({"teacher_temperature": temperature, "extraction_epochs": epochs}, None)
        for temperature in (0.5, 0.75, 1.0)
        for epochs in (10, 30, 60)
    ),
    ({"noise": 0.0}, None),
    ({"noise": 0.25}, None),
    ({"ridge_share": 0.0005}, None),
    ({"ridge_share": 0.016}, None),
    ({"ridge_share": 0.06}, None),
    ({"dimension": 128}, None),
    ({"dimension": 512}, None),
    ({}, {"epochs": 5, "batch_size": 128, "lr": 1e-4}),
    ({}, {"epochs": 20, "batch_size": 128, "lr": 3e-4}),
    ({}, {"epochs": 20, "batch_size": 128, "lr": 1e-3}),
    ({}, {"lr": 1e-4}),
    ({}, {"lr": 1e-3}),
]


@dataclass
class Theme:
    """A task with its teacher; frozen features are computed once."""

    task: Task
    teacher: Method
    features: dict[tuple[int, str], Tensor]

    def look(self, backbone: Backbone, split: Split) -> Tensor:
        """Frozen features, kept."""
        key = (id(backbone), split.part)
        if key not in self.features:
            self.features[key] = transfer.frozen_features(backbone, split)
        return self.features[key]

    def accuracy(self, logits: Tensor) -> tuple[float, float]:
        """Base and novel accuracy on validation items, each half among its own classes, from logits of all."""
        labels, count = torch.tensor(self.task.val.labels), len(self.task.base().classes)
        of_base = labels < count
        base = score(logits[of_base, :count], labels[of_base].tolist())
        novel = score(logits[~of_base, count : len(self.task.classes)], (labels[~of_base] - count).tolist())
        return base.accuracy, novel.accuracy


def theme(name: str, source: Backbone) -> Theme:
    """A theme and a teacher that was trained on its base classes."""
    task = ra.load_task(f"pictograms/{name}")
    teacher = ra.RMAdapter(source)
    ra.fit(teacher, task.base().shots(16, seed=1), show_progress=False)
    return Theme(task, teacher, {})


def carried(of: Theme, target: Backbone, settings: dict[str, Any], step: dict[str, Any] | None) -> tuple[float, float]:
    """Accuracies of what was carried over."""
    base = of.task.base().shots(16, seed=1)
    plus = None if step is None else train_settings("transmiter", target.variant, step)
    net = transfer.carry(of.teacher, target, base, of.task.classes, plus=plus, look=of.look, **settings).method
    logits = transfer.frozen_logits(net, net.classes, net.template, of.look(target, of.task.val))
    with torch.no_grad():
        return of.accuracy(net.net(logits))


def row(name: str, found: list[tuple[float, float]]) -> str:
    """A line of the table."""
    base, novel = (sum(pair[i] for pair in found) / len(found) for i in (0, 1))
    cells = [
        *(f"{b:.1f} / {n:.1f}" for b, n in found),
        f"{base:.1f} / {novel:.1f}",
        f"{ra.harmonic_mean(base, novel):.1f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def others(themes: list[Theme], target: Backbone) -> None:
    """Rows of what needs no settings."""
    plain: dict[str, list[tuple[float, float]]] = {"zero-shot": [], "teacher": [], "EFT": [], "ensemble": []}
    for of in themes:
        source, classes, template = of.teacher.backbone, of.task.classes, of.task.template
        zero = [
            transfer.frozen_logits(ra.ZeroShot(each), classes, template, of.look(each, of.task.val))
            for each in (target, source)
        ]
        taught = transfer.logits(of.teacher.predictor(classes, template), of.task.val)
        mixed = (transfer.eft(*zero, taught), transfer.ensemble(zero[0], taught))
        for name, logits in zip(plain, (zero[0], taught, *mixed), strict=True):
            plain[name].append(of.accuracy(logits))
    for name, found in plain.items():
        print(row(name, found), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("themes", nargs="+")
    parser.add_argument("--to", default="pictoclip-m", help="the target")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, target = ra.load_backbone("pictoclip-s"), ra.load_backbone(given.to)
    themes = [theme(name, source) for name in given.themes]
    print(f"| base / novel | {' | '.join(given.themes)} | mean | HM |\n| --- |{' --- |' * (len(themes) + 2)}")
    others(themes, target)
    for settings, step in CANDIDATES:
        for novel in ("known", "blind"):
            said = ", ".join(f"{key} {value}" for key, value in settings.items()) or "as shipped"
            then = "" if step is None else " + " + ", ".join(f"{key} {value}" for key, value in step.items())
            found = [carried(of, target, {**settings, "novel": novel}, step) for of in themes]
            print(row(f"{said}{then}, {novel}", found), flush=True)


if __name__ == "__main__":
    main()
