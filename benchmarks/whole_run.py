"""A whole few-shot run of MMA from image files to a trained adapter, beside the same run written the usual way.

    python benchmarks/whole_run.py [--classes 10] [--shots 16] [--epochs 5] [--backbone ViT-B-16-quickgelu]

Random weights, float32, JPEG files of 320 x 240 in a temporary folder, batches of 16, random crops and flips. Ours is
``rmadapter.fit`` with the recipe of MMA. The usual way is torchvision's transforms in torch's loader, in the same
process, in front of ``reference_mma.py``. ``again`` is ours where a run before it drew the same views, as in a sweep
over settings. Seconds are of the whole run; all take as many steps.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import interleaved, medians, parser, ratio, write
from predict import write as write_images
from reference_mma import ReferenceMMA, create
from step import TEMPLATE, backbone_of, names, optimizer
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import rmadapter as ra
from rmadapter.method import prompts
from rmadapter.methods.mma import MMA
from rmadapter.views import SharedRows

BATCH = 16


def tree(folder: Path, classes: int, shots: int) -> None:
    """A class folder of images a class, for training, and an image each for testing, which is not used."""
    for name in names(classes):
        for part, count in (("train", shots), ("test", 1)):
            place = folder / part / name.replace("/", " or ")
            place.mkdir(parents=True)
            write_images(place, count)


def ours(backbone: Any, folder: Path, epochs: int, shared: SharedRows | None = None) -> None:
    """The package."""
    task = ra.load_task(folder)
    settings = {"epochs": epochs, "batch_size": BATCH, "augment": "crop_flip"}
    with tempfile.TemporaryDirectory() as out:
        ra.fit(MMA(backbone), task, Path(out) / "run", show_progress=False, shared=shared, **settings)


def usual(clip: Any, backbone: Any, folder: Path, epochs: int) -> None:
    """A loader, a model and a loop."""
    size, mean, std = backbone.preprocess.size, backbone.preprocess.mean, backbone.preprocess.std
    crop = transforms.RandomResizedCrop(size, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(mean, std)]
    images = ImageFolder(folder / "train", transforms.Compose(steps))
    model = ReferenceMMA(clip, prompts(images.classes, TEMPLATE), backbone.tokenizer)
    stepper = optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, epochs)
    for _ in range(epochs):
        for pixels, labels in DataLoader(images, BATCH, shuffle=True, drop_last=True):
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            stepper.step()
            stepper.zero_grad()
            loss.item()  # as a log would have it
        schedule.step()


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, repeats=3)
    made.add_argument("--backbone", default="ViT-B-16-quickgelu")
    made.add_argument("--classes", type=int, default=10)
    made.add_argument("--shots", type=int, default=16)
    made.add_argument("--epochs", type=int, default=5)
    arguments = made.parse_args()
    if arguments.short:
        arguments.shots, arguments.epochs = 2, 1
    clip = create(arguments.backbone)
    backbone = backbone_of(arguments.backbone, clip)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree(folder, arguments.classes, arguments.shots)
        shared = SharedRows()
        ours(backbone, folder, arguments.epochs, shared)  # keeps what "again" finds
        usual(clip, backbone, folder, 1)  # so that neither side's first use of anything counts
        sides = {
            "usual": lambda: usual(clip, backbone, folder, arguments.epochs),
            "ours": lambda: ours(backbone, folder, arguments.epochs),
            "again": lambda: ours(backbone, folder, arguments.epochs, shared),
        }
        times = interleaved(sides, arguments.repeats, warm=0)
    seen = arguments.epochs * (arguments.classes * arguments.shots // BATCH * BATCH)
    rates = {side: round(seen / statistics.median(values), 2) for side, values in times.items()}
    faster = {side: ratio(times, "usual", side) for side in ("ours", "again")}
    results = {"seconds": medians(times), "times_faster": faster, "images_per_second": rates}
    print(json.dumps(results, indent=1))
    write("whole_run", arguments, results)


if __name__ == "__main__":
    main()
