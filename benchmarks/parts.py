"""What each part of RMAdapter costs in a training step: time and peak memory.

    python benchmarks/parts.py [--classes 50] [--repeats 21] [--backbone ViT-B-16-quickgelu]

Random weights, float32, a new view of every image at every step. ``frozen`` is the forward pass of the frozen backbone
alone, text features made once; ``adaptation`` is the single branch with cross-entropy; the others add reconstruction,
consistency, and both, to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from common import fresh, interleaved, medians, memory, parser, ratio, write
from step import TEMPLATE, backbone_of, batch, create, names, optimizer
from torch import Tensor

from rmadapter.gradients import gradients
from rmadapter.method import Teacher
from rmadapter.methods.rmadapter import RMAdapter
from rmadapter.methods.zero_shot import ZeroShot

RECONSTRUCTION = ("reconstruction_image", "reconstruction_text")
CONSISTENCY = ("consistency_image", "consistency_text")
WITHOUT = {
    "adaptation": RECONSTRUCTION + CONSISTENCY,
    "reconstruction": CONSISTENCY,
    "consistency": RECONSTRUCTION,
    "both": (),
}
"""The weights that are 0."""


def step(side: str, backbone: Any, images: int, classes: int) -> Callable[[], object]:
    """A training step with some of the parts."""
    pixels, labels = batch(backbone, images, classes)
    if side == "frozen":
        zero_shot = ZeroShot(backbone)
        rows = zero_shot.begin_text(names(classes), TEMPLATE)
        return lambda: zero_shot(zero_shot.begin("image", pixels), rows)
    method = RMAdapter(backbone, **dict.fromkeys(WITHOUT[side], 0)).train()
    method.start(names(classes), TEMPLATE)
    text, stepper = method.begin_text(method.classes), optimizer(method.parameters())
    taught = method.teacher_text(method.classes, text) if method.needs_teacher else None

    def run() -> None:
        image = method.begin("image", pixels)
        teacher = None if taught is None else Teacher(method.frozen("image", image), taught)
        gradients(method, image, labels, text, teacher, nullcontext, Tensor.backward)
        stepper.step()
        stepper.zero_grad()

    return run


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, repeats=21)
    made.add_argument("--backbone", default="ViT-B-16-quickgelu")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--classes", type=int, default=50)
    made.add_argument("--processes", type=int, default=3, help="that memory is the median of")
    arguments = made.parse_args()
    if arguments.short:
        arguments.repeats, arguments.processes = 1, 1
    asked = {"backbone": arguments.backbone, "batch": arguments.batch, "classes": arguments.classes}
    if arguments.fresh:
        asked = json.loads(arguments.fresh)
    backbone = backbone_of(asked["backbone"], create(asked["backbone"]))
    if arguments.fresh:
        print(json.dumps(memory(step(asked["side"], backbone, asked["batch"], asked["classes"]))))
        return
    every = ("frozen", *WITHOUT)
    times = interleaved(
        {side: step(side, backbone, arguments.batch, arguments.classes) for side in every}, arguments.repeats
    )
    peaks = {side: fresh(__file__, {**asked, "side": side}, arguments.processes) for side in every}
    base = peaks["adaptation"]
    results = {
        "seconds": medians(times),
        "memory": peaks,
        "over_adaptation": {side: ratio(times, side, "adaptation") for side in every if side != "adaptation"},
        "memory_over_adaptation": {
            side: {key: round(found[key] / base[key], 3) for key in base} for side, found in peaks.items()
        },
    }
    print(json.dumps(results, indent=1))
    write("parts", arguments, results)


if __name__ == "__main__":
    main()
