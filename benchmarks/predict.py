"""Predictions: throughput with an adapter beside plain open_clip's, of files beside the bare model's, and peak memory.

    python benchmarks/predict.py [--backbone pictoclip-s] [--few 1000] [--many 10000] [--bare 2000] [--batch 64]

Writes that many photo-sized JPEG files (320 x 240) into a temporary folder. ``bare`` is RMAdapter's predictor on pixels
that are decoded already; ``open_clip`` is open_clip's own model of the same sizes on the same pixels, against text
features that are there already; ``files`` is the predictor on files, and ``decoding`` reads these without a model: what
is slower of ``bare`` and ``decoding`` is what files wait for. Peak memory is of fresh processes, one a count.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import fresh, interleaved, medians, memory, parser, ratio
from common import write as write_json
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from torch import Tensor

import rmadapter as ra
from rmadapter.backbones.clip import Shape
from rmadapter.data import loader
from rmadapter.data.task import ImageFile

CLASSES = ("red panda", "otter", "tapir", "bicycle", "rose")


def write(folder: Path, count: int) -> list[Path]:
    """Images of smooth noise, each different."""
    rng, files = np.random.default_rng(0), []
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        path = folder / f"{index:05}.jpg"
        small.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)
        files.append(path)
    return files


def predictor(backbone: str, random: bool) -> ra.Predictor:
    """RMAdapter with its initial values: what is computed does not depend on them."""
    return ra.RMAdapter(ra.load_backbone(backbone, None if random else "default")).predictor(CLASSES)


def streamed(model: ra.Predictor, files: list[Path], batch: int) -> None:
    """From files to predictions."""
    assert sum(1 for _ in model.stream(files, top=1, batch_size=batch)) == len(files)


def decoding(model: ra.Predictor, files: list[Path]) -> None:
    """From files to pixels."""
    pictures = (ImageFile(path, path.name) for path in files)
    assert sum(1 for _ in loader.decoded(pictures, model.method.backbone.preprocess)) == len(files)


def without_niceness(model: ra.Predictor, files: list[Path], batch: int) -> None:
    """The same where threads that decode do not give way to the model."""
    nice, loader.NICENESS = loader.NICENESS, 0
    try:
        streamed(model, files, batch)
    finally:
        loader.NICENESS = nice


def bare(model: ra.Predictor, pixels: Tensor, batches: int) -> None:
    """The model alone."""
    for _ in range(batches):
        model.logits(pixels).softmax(dim=-1).topk(1)


def plain(shape: Shape) -> CLIP:
    """Open_clip's model of some sizes, with random weights."""
    image = CLIPVisionCfg(
        layers=shape.image.depth,
        width=shape.image.width,
        head_width=shape.image.width // shape.image.heads,
        mlp_ratio=shape.image.mlp / shape.image.width,
        patch_size=shape.patch_size,
        image_size=shape.image_size,
    )
    text = CLIPTextCfg(shape.context, shape.vocabulary, width=shape.text.width, heads=shape.text.heads, layers=1)
    return CLIP(shape.joint, image, text, quick_gelu=shape.activation == "quick_gelu").eval().requires_grad_(False)


@torch.no_grad()
def usual(model: CLIP, text: Tensor, normalise: Callable[[Tensor], Tensor], pixels: Tensor, batches: int) -> None:
    """Open_clip's image features against text features."""
    for _ in range(batches):
        feature = model.encode_image(normalise(pixels), normalize=True)
        (model.logit_scale.exp() * feature @ text.T).softmax(dim=-1).topk(1)


def main() -> None:
    """Measure, interleaved, and print medians."""
    made = parser(__doc__, repeats=5)
    made.add_argument("--backbone", default="pictoclip-s")
    made.add_argument("--random", action="store_true", help="random weights, for a backbone of open_clip")
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--few", type=int, default=1000)
    made.add_argument("--many", type=int, default=10_000)
    made.add_argument("--bare", type=int, default=2000, help="images of a repeat of the timed comparison")
    arguments = made.parse_args()
    asked = {"backbone": arguments.backbone, "random": arguments.random, "batch": arguments.batch}
    if arguments.fresh:
        asked = json.loads(arguments.fresh)
        files = sorted(Path(asked["folder"]).iterdir())[: asked["count"]]
        model = predictor(asked["backbone"], asked["random"])
        print(json.dumps(memory(lambda: streamed(model, files, asked["batch"]), steps=1)))
        return
    if arguments.short:
        arguments.few, arguments.many, arguments.bare, arguments.repeats = 128, 256, 256, 1
    model = predictor(arguments.backbone, arguments.random)
    preprocess, shape = model.method.backbone.preprocess, model.method.backbone.shape
    pixels = torch.randint(0, 256, (arguments.batch, 3, preprocess.size, preprocess.size), dtype=torch.uint8)
    text, other = F.normalize(torch.randn(len(CLASSES), shape.joint), dim=-1), plain(shape)
    batches = max(1, arguments.bare // arguments.batch)
    count = batches * arguments.batch
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), max(arguments.many, count))
        sides = {
            "open_clip": lambda: usual(other, text, preprocess.normalise, pixels, batches),
            "bare": lambda: bare(model, pixels, batches),
            "decoding": lambda: decoding(model, files[:count]),
            "files": lambda: streamed(model, files[:count], arguments.batch),
            "files_without_niceness": lambda: without_niceness(model, files[:count], arguments.batch),
        }
        times = interleaved(sides, arguments.repeats)
        whole = interleaved({"many": lambda: streamed(model, files[: arguments.many], arguments.batch)}, 1, warm=0)
        peaks = {n: fresh(__file__, {**asked, "folder": name, "count": n}) for n in (arguments.few, arguments.many)}
    results = {
        "images_per_second": {side: round(count / seconds, 1) for side, seconds in medians(times).items()}
        | {f"{arguments.many}_files": round(arguments.many / whole["many"][0], 1)},
        "bare_over_open_clip": ratio(times, "open_clip", "bare"),
        "files_over_bare": ratio(times, "bare", "files"),
        "files_over_files_without_niceness": ratio(times, "files_without_niceness", "files"),
        "memory_by_files": peaks,
    }
    print(json.dumps(results, indent=1))
    write_json(f"predict-{arguments.backbone}", arguments, results)


if __name__ == "__main__":
    main()
