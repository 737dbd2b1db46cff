"""Predictions of many files: throughput beside the bare model's, and whether memory grows with their number.

    python benchmarks/predict.py [--backbone pictoclip-s] [--few 1000] [--many 10000] [--bare 2000]

Writes that many photo-sized JPEG files (320 x 240) into a temporary folder. The bare model is the same predictor on
pixels that are decoded already, in batches of the same size. Peak memory is of fresh processes, one a count.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rmadapter as ra

BATCH, REPEATS = 64, 3
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


def predictor(backbone: str, pretrained: str) -> ra.Predictor:
    """RMAdapter with its initial values: what is computed does not depend on them."""
    return ra.RMAdapter(ra.load_backbone(backbone, pretrained)).predictor(CLASSES)


def streamed(model: ra.Predictor, files: list[Path]) -> float:
    """Images a second from files to predictions."""
    begun = time.perf_counter()
    count = sum(1 for _ in model.stream(files, top=1, batch_size=BATCH))
    return count / (time.perf_counter() - begun)


def bare(model: ra.Predictor, count: int) -> float:
    """Images a second of the model alone."""
    pixels = torch.randint(0, 256, (BATCH, 3, *[model.method.backbone.preprocess.size] * 2), dtype=torch.uint8)
    begun = time.perf_counter()
    for _ in range(0, count, BATCH):
        model.logits(pixels).softmax(dim=-1).topk(1)
    return (count // BATCH * BATCH) / (time.perf_counter() - begun)


def peak(arguments: argparse.Namespace, folder: Path, count: int) -> float:
    """Peak MiB of a process that predicts so many files."""
    command = [sys.executable, __file__, "--backbone", arguments.backbone, "--pretrained", arguments.pretrained]
    run = subprocess.run([*command, "--peak", str(folder), str(count)], check=True, capture_output=True, text=True)
    return float(run.stdout)


def main() -> None:
    """Measure, interleaved, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="pictoclip-s")
    parser.add_argument("--pretrained", default="default")
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--bare", type=int, default=2000, help="images of a repeat of the timed comparison")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = predictor(arguments.backbone, arguments.pretrained)
    if arguments.peak:
        files = sorted(Path(arguments.peak[0]).iterdir())[: int(arguments.peak[1])]
        streamed(model, files)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
        return
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), arguments.many)
        rates: dict[str, list[float]] = {"files": [], "bare": []}
        for _ in range(REPEATS):
            rates["bare"].append(bare(model, arguments.bare))
            rates["files"].append(streamed(model, files[: arguments.bare]))
        found = {key: round(statistics.median(values)) for key, values in rates.items()}
        whole = round(streamed(model, files))
        memory = {count: round(peak(arguments, Path(name), count)) for count in (arguments.few, arguments.many)}
    ratio = round(statistics.median(f / b for f, b in zip(rates["files"], rates["bare"], strict=True)), 3)
    print(json.dumps({"backbone": arguments.backbone, "images_per_second": found, "files_over_bare": ratio}))
    print(json.dumps({f"images_per_second_{arguments.many}_files": whole, "peak_MiB_by_files": memory}))


if __name__ == "__main__":
    main()
