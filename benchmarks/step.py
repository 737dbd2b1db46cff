"""A training step of MMA: time and peak memory against the number of classes, beside the same method written the usual
way on open_clip's modules (``reference_mma.py``).

    python benchmarks/step.py [--classes 10,50,100,200,500,1000] [--repeats 5] [--backbone ViT-B-16-quickgelu]

Random weights, float32, ImageNet's class names in "a photo of a {}.". Both sides have the same weights and see the same
images; their logits and gradients are compared before anything is timed. A ratio is the reference's share over ours, so
time is better above 1; of memory it is ours over the reference's, better below 1. The reference is left out where its
activations would not fit into memory. ``sdpa`` is the reference with one change: attention as it is written today.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from common import available, fresh, interleaved, medians, memory, parser, ratio, write
from reference_mma import ReferenceMMA, create
from torch import Tensor

from rmadapter.backbones import Backbone, build
from rmadapter.backbones.openclip import rename, shape_of
from rmadapter.backbones.preprocess import Preprocess
from rmadapter.gradients import gradients
from rmadapter.method import Method, prompts
from rmadapter.methods.mma import MMA

TEMPLATE = "a photo of a {}."
LIMIT, ONE_UNIT = 1e-4, 1e-2
"""The largest difference between the sides, of nine of ten tensors and of each."""
THEIRS = {"reference": "module", "sdpa": "sdpa"}
"""Sides that are not ours, and the attention of each."""
REFERENCE_MIB = 24.0
"""That the reference needs a class at ViT-B/16, at most."""
Gradients = dict[str, Tensor]
"""By our names."""


class Side(NamedTuple):
    """A way of training."""

    logits: Callable[[], Tensor]
    """Of the batch, before a step."""
    step: Callable[[], Gradients]
    """A training step."""


def names(count: int) -> tuple[str, ...]:
    """The first of ImageNet's class names; the second of two that are the same gets a number."""
    found: dict[str, None] = {}
    for name in open_clip.IMAGENET_CLASSNAMES:
        found[name if name not in found else f"{name} 2"] = None
    return tuple(found)[:count]


def backbone_of(name: str, clip: Any) -> Backbone:
    """Our backbone with the tensors of an open_clip model."""
    config = open_clip.get_model_config(name)
    preprocess = Preprocess.from_open_clip(open_clip.get_model_preprocess_cfg(clip), name)
    parts = (shape_of(config, name), rename(clip.state_dict(), name), preprocess, open_clip.get_tokenizer(name))
    return build(parts, name, None, template=TEMPLATE)


def batch(backbone: Backbone, images: int, classes: int) -> tuple[Tensor, Tensor]:
    """Pixels and labels, the same for a seed."""
    generator = torch.Generator().manual_seed(0)
    size = backbone.shape.image_size
    return torch.randn(images, 3, size, size, generator=generator), torch.arange(images) % classes


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    """As published."""
    return torch.optim.SGD(parameters, lr=0.0015, momentum=0.9, weight_decay=5e-4)


def ours(method: Method, pixels: Tensor, labels: Tensor) -> Side:
    """What ``fit`` does at a step, without the loader. What it does once a run is done here."""
    method.train()
    text, stepper = method.begin_text(method.classes), optimizer(method.parameters())

    def step() -> Gradients:
        gradients(method, method.begin("image", pixels), labels, text, None, nullcontext, Tensor.backward)
        grads = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        stepper.step()
        stepper.zero_grad()
        return grads

    return Side(lambda: method(method.begin("image", pixels), text).features.logits, step)


def theirs(model: ReferenceMMA, pixels: Tensor, labels: Tensor) -> Side:
    """The usual step."""
    stepper = optimizer(model.parameters())

    def step() -> Gradients:
        loss = F.cross_entropy(model(pixels), labels)
        loss.backward()
        grads = {name: p.grad for name, p in model.ours().items() if p.grad is not None}
        stepper.step()
        stepper.zero_grad()
        return grads

    return Side(lambda: model(pixels), step)


def sides(arguments: argparse.Namespace, classes: int, which: tuple[str, ...]) -> dict[str, Side]:
    """Some sides, from the same weights."""
    clip = create(arguments.backbone)
    backbone = backbone_of(arguments.backbone, clip)
    pixels, labels = batch(backbone, arguments.batch, classes)
    method = MMA(backbone)
    method.start(names(classes), TEMPLATE)
    made: dict[str, Side] = {}
    for side in (side for side in THEIRS if side in which):
        texts, blocks = prompts(method.classes, TEMPLATE), len(method.image)
        reference = ReferenceMMA(clip, texts, backbone.tokenizer, blocks, THEIRS[side])
        with torch.no_grad():
            for name, parameter in reference.ours().items():
                parameter.copy_(method.state_dict()[name])
        made[side] = theirs(reference, pixels, labels)
    if "ours" in which:
        made["ours"] = ours(method, pixels, labels)
    return made


def compare(one: Gradients, other: Gradients, logits: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Differences of logits and gradients, relative to the largest value of each tensor.

    A hidden unit of an adapter whose input is 0 but for rounding may be on in one side and off in the other (ReLU).
    That is seen in the gradients of its own layer and of those below it: nine of ten tensors must agree, all nearly.
    """
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    found = {"logits": _error(*logits)}
    errors = sorted(_error(one[name], other[name]) for name in one)
    found |= {"gradients, nine of ten tensors": errors[9 * (len(errors) - 1) // 10], "gradients, all": errors[-1]}
    limits = (LIMIT, LIMIT, ONE_UNIT)
    if any(error > limit for error, limit in zip(found.values(), limits, strict=True)):
        raise SystemExit(f"the two sides do not compute the same: {found}")
    return found


def _error(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def measure(arguments: argparse.Namespace, classes: int) -> dict[str, Any]:
    """Time, memory and agreement at one number of classes."""
    theirs = tuple(THEIRS) if classes * REFERENCE_MIB < 0.8 * available() else ()
    made, found = sides(arguments, classes, (*theirs, "ours")), dict[str, Any]()
    with torch.no_grad():
        logits = {side: each.logits() for side, each in made.items()}
    first = {side: each.step() for side, each in made.items()}
    found["differences"] = {
        side: compare(first["ours"], first[side], (logits["ours"], logits[side])) for side in theirs
    }
    del first
    times = interleaved({side: each.step for side, each in made.items()}, arguments.repeats)
    found["seconds"] = medians(times)
    del made
    asked = {"backbone": arguments.backbone, "batch": arguments.batch, "classes": classes}
    peaks = {side: fresh(__file__, {**asked, "side": side}, arguments.processes) for side in (*theirs, "ours")}
    found["memory"] = peaks
    found["times_faster"] = {side: ratio(times, side, "ours") for side in theirs}
    found["memory_ratio"] = {
        side: {key: round(peaks["ours"][key] / peaks[side][key], 3) for key in peaks[side]} for side in theirs
    }
    return found


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, repeats=5)
    made.add_argument("--backbone", default="ViT-B-16-quickgelu")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--classes", default="10,50,100,200,500,1000")
    made.add_argument("--processes", type=int, default=3, help="that memory is the median of")
    arguments = made.parse_args()
    if arguments.fresh:
        asked = json.loads(arguments.fresh)
        (side,) = sides(argparse.Namespace(**asked), asked["classes"], (asked["side"],)).values()
        print(json.dumps(memory(side.step)))
        return
    if arguments.short:
        arguments.classes, arguments.repeats, arguments.processes = "10,50", 1, 1
    results = {}
    for classes in map(int, arguments.classes.split(",")):
        results[classes] = measure(arguments, classes)
        print(json.dumps({"classes": classes, **results[classes]}), flush=True)
    write("step", arguments, results)


if __name__ == "__main__":
    main()
