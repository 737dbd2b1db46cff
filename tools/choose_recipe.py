"""Choose RMAdapter's settings for the embedded world on validation items of three themes; no test item is read.

    python tools/choose_recipe.py animals food transport > table.md

Each candidate is trained on 16 shots of the base classes (seed 1) and scored on the validation items of base and novel
classes. Prints a Markdown table a theme. About half a minute a candidate and theme on one core.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import rmadapter as ra
from rmadapter.data import Task
from rmadapter.method import Method

ADAPTATION = {"reconstruction_image": 0, "reconstruction_text": 0, "consistency_image": 0, "consistency_text": 0}
COMMON = {"zero_start": True, "scale": 1.0}
TRAIN = {
    "optimizer": "adamw",
    "schedule": "cosine_by_step",
    "warmup_epochs": 0,
    "weight_decay": 1e-3,
    "augment": "none",
}


def weights(reconstruction: float, consistency: float) -> dict[str, float]:
    """Loss weights as multiples of (1, 1) for reconstruction and of the card's (10, 25) for consistency."""
    return {
        "reconstruction_image": reconstruction,
        "reconstruction_text": reconstruction,
        "consistency_image": 10 * consistency,
        "consistency_text": 25 * consistency,
    }


# Method settings and training settings beside COMMON and TRAIN; first coarse (adaptation alone), then the weights.
CANDIDATES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({**ADAPTATION, "scale": 0.5}, {"lr": 0.002, "augment": "crop_flip"}),
    ({**ADAPTATION, "scale": 0.5}, {"lr": 0.002}),
    ({**ADAPTATION, "scale": 0.1}, {"lr": 0.002}),
    ({**ADAPTATION, "scale": 0.5}, {"lr": 0.0005}),
    ({**ADAPTATION}, {"lr": 0.002}),
    ({**ADAPTATION, "zero_start": False, "scale": 0.1}, {"lr": 0.002}),
    (weights(0.1, 0), {"lr": 0.002}),
    (weights(1, 0), {"lr": 0.002}),
    (weights(0, 0.1), {"lr": 0.002}),
    (weights(0, 0.4), {"lr": 0.002}),
    (weights(0, 1), {"lr": 0.002}),
    (weights(0.1, 0.1), {"lr": 0.002}),
    (weights(0.1, 0.4), {"lr": 0.002}),
    (ADAPTATION, {"lr": 0.004}),
    (weights(0.1, 0.4), {"lr": 0.004}),
    (weights(0.1, 1), {"lr": 0.004}),
    (weights(0.1, 1), {"lr": 0.008}),
    (weights(0.1, 0.4), {"lr": 0.004, "epochs": 12}),
    ({**weights(0.1, 0.4), "fused": True}, {"lr": 0.004}),
]


def validation(method: Method, task: Task) -> str:
    """Base, novel and HM on validation items, as table cells."""
    method.template = task.template
    base, novel = (
        ra.evaluate(method.predictor(part.classes), part.val).accuracy for part in (task.base(), task.novel())
    )
    return f"{base:.1f} | {novel:.1f} | {ra.harmonic_mean(base, novel):.1f}"


def describe(settings: dict[str, Any]) -> str:
    """Settings in a table cell; the four weights as a pair of multiples."""
    shown = {key: value for key, value in settings.items() if key not in ADAPTATION}
    if ADAPTATION.keys() <= settings.keys():
        shown["λ1, λ2"] = settings["reconstruction_image"]
        shown["λ3, λ4"] = f"{settings['consistency_image']:g}, {settings['consistency_text']:g}"
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def main(themes: list[str]) -> None:
    """Print a table for each theme."""
    torch.set_num_threads(1)
    backbone = ra.load_backbone("pictoclip-s")
    for theme in themes:
        task = ra.load_task(f"pictograms/{theme}")
        print(f"\n{theme}\n\n| method | training | base | novel | HM |\n| --- | --- | --- | --- | --- |")
        print(f"| zero-shot | | {validation(ra.ZeroShot(backbone), task)} |", flush=True)
        for settings, train in CANDIDATES:
            method = ra.RMAdapter(backbone, **{**COMMON, **settings})
            ra.fit(method, task.base().shots(16, seed=1), show_progress=False, **{"epochs": 8, **TRAIN, **train})
            print(
                f"| {describe({**COMMON, **settings})} | {describe(train)} | {validation(method, task)} |", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
