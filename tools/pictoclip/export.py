"""Writes a checkpoint as a model folder of the package.

    python tools/pictoclip/export.py build/pictoclip/s src/rmadapter/backbones/pictoclip/s

The folder gets ``config.json`` (shape and preprocessing), ``model.safetensors`` (our parameter names, half precision),
``tokenizer.json``, ``log.jsonl``, ``curve.png`` and ``MODEL.md``: recipe, data, attributions, and the zero-shot
accuracy of what was written, read back, on the validation scenes of the ten themes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import checkpoint
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from zero_shot import ZeroShot

from rmadapter.backbones.clip import CLIP, Shape
from rmadapter.backbones.preprocess import Preprocess

ROOT = Path(__file__).resolve().parents[2]


NOTES = """
Validation scenes of the tasks were looked at to watch the curve (`log.jsonl`, `curve.png`); the last weights count.
The evaluation styles (fluent-emoji in its three forms, fxemoji) were not trained on.

## Artwork trained on

Icons were rendered to 64 x 64 pixels and composed into scenes (changes to the originals); the model contains none of
them. Names, groups and other names of emoji are CLDR's (Copyright Unicode, Inc., Unicode-3.0 licence) as packaged by
emojibase-data (Copyright (c) 2017-2019 Miles Johnson, MIT licence), with icon names from emoji-datasource (MIT).
"""


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a checkpoint, in half precision."""
    mine = {name.removeprefix("clip."): value for name, value in tensors.items() if name.startswith("clip.")}
    small = {name: value.to(torch.float16) for name, value in mine.items()}
    for name, value in small.items():
        if not value.isfinite().all():
            raise SystemExit(f"{name} does not fit into half precision")
    return small


def schedule(run: dict[str, Any]) -> str:
    """What the learning rates' fall was stretched over, and where a later call stretched it anew."""
    if not run["budget"]:
        return f"{run['total']:,} images"
    said, before = [], 0
    for row in run["state"]["log"]:
        budget = round(row["minutes"] / row["progress"])
        if budget != before and row["progress"] < 1:
            said.append(f"{budget} minutes" if not before else f"{budget} by minute {row['minutes']:.0f}")
        before = budget
    return ", changed to ".join(said)


def recipe(run: dict[str, Any], parameters: int, scores: dict[str, float], attributions: str) -> str:
    """MODEL.md."""
    state = run["state"]
    millions = f"{parameters / 1e6:.2f} M"
    facts = [
        f"# PictoCLIP-{run['size'].upper()}",
        "",
        f"A CLIP of {millions} parameters, trained from nothing on {state['images']:,} scenes of pictogram",
        "artwork and its names, in float32 on two CPU cores, by `tools/pictoclip/train.py`.",
        "",
        "| | |",
        "| --- | --- |",
        f"| minutes of training | {state['minutes']:.0f} |",
        f"| schedule | {schedule(run)} |",
        f"| steps | {state['step']:,} on {run['processes']} processes |",
        f"| settings | `{json.dumps(run['settings'])}` |",
        f"| seed | {run['seed']} |",
        f"| artwork (sha256 of its sprites) | `{run['artwork']}` |",
        f"| zero-shot on validation scenes, %, mean over the ten themes | `{json.dumps(scores)}` |",
    ]
    return "\n".join([*facts, NOTES, attributions])


def export(source: Path, target: Path, artwork: Path) -> None:
    """Write the folder."""
    run, tensors = checkpoint.read(source / checkpoint.FILE)
    if json.loads((artwork / "index.json").read_text(encoding="utf-8"))["sha256"] != run["artwork"]:
        raise SystemExit(f"{artwork} is not the artwork that {source} was trained on")
    target.mkdir(parents=True, exist_ok=True)
    small = weights(tensors)
    save_file(small, target / "model.safetensors")
    (target / "model.safetensors").chmod(0o644)  # the library makes it readable by its owner only
    config = {key: run[key] for key in ("shape", "preprocess")}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "log.jsonl", "curve.png"):
        shutil.copyfile(source / name, target / name)
    attributions = (artwork / "ATTRIBUTION.md").read_text(encoding="utf-8")
    text = recipe(run, sum(value.numel() for value in small.values()), check(target), attributions)
    (target / "MODEL.md").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB, last log line: {json.dumps(run['state']['log'][-1])}")


def check(folder: Path) -> dict[str, float]:
    """Read the folder as the package does and score it on the validation scenes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    clip = CLIP(Shape.from_dict(config["shape"]))
    stored = load_file(folder / "model.safetensors")
    clip.load_state_dict({name: value.to(torch.float32) for name, value in stored.items()}, strict=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()

    def tokenize(texts: list[str]) -> Tensor:
        return torch.tensor([encoded.ids for encoded in tokenizer.encode_batch(texts)])

    return ZeroShot(Preprocess.from_dict(config["preprocess"]), tokenize)(clip)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a run's folder")
    parser.add_argument("target", type=Path, help="the model's folder")
    parser.add_argument("--artwork", type=Path, default=ROOT / "build" / "pictoclip" / "artwork")
    given = parser.parse_args()
    export(given.source, given.target, given.artwork)


if __name__ == "__main__":
    main()
