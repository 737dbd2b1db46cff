"""Everything that a run needs to go on, in one safetensors file.

There is no random state in it: draws are a function of seed, step and process.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from trainer import Trainer

FILE = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Weights and the state of both optimisers, by name."""
    found: dict[str, Tensor] = {name: value.detach() for name, value in trainer.named.items()}
    found |= {f"muon.{name}": value for name, value in trainer.muon.momentum.items()}
    for name, value in trainer.named.items():
        state = trainer.adamw.state.get(value, {})
        found |= {f"adamw.{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
    return found


def save(trainer: Trainer) -> None:
    """Write the checkpoint, or leave the old one as it is."""
    kept = {
        "state": asdict(trainer.state),
        "shape": trainer.clip.shape.to_dict(),
        "preprocess": trainer.preprocess.to_dict(),
        "settings": asdict(trainer.settings),
        "size": trainer.plan.size,
        "budget": trainer.plan.budget,
        "total": trainer.plan.images,
        "seed": trainer.plan.seed,
        "processes": trainer.plan.processes,
        "artwork": trainer.artwork.sha256,
    }
    beside = trainer.plan.out / f"{FILE}.new"
    save_file(_tensors(trainer), beside, metadata={"run": json.dumps(kept)})
    os.replace(beside, trainer.plan.out / FILE)  # noqa: PTH105  the same, and it says that it overwrites


def load(trainer: Trainer) -> bool:
    """Take up a checkpoint if there is one. One of another model, artwork or seed stops the run."""
    file = trainer.plan.out / FILE
    if not file.exists():
        return False
    kept, tensors = read(file)
    wanted = {"shape": trainer.clip.shape.to_dict(), "artwork": trainer.artwork.sha256, "seed": trainer.plan.seed}
    for key, value in wanted.items():
        if kept[key] != value:
            raise SystemExit(f"{file} was trained with another {key}: {kept[key]}, not {value}; take another --out")
    with torch.no_grad():
        for name, value in trainer.named.items():
            value.copy_(tensors.pop(name))
        for name, value in trainer.muon.momentum.items():
            value.copy_(tensors.pop(f"muon.{name}"))
    adamw = {key: tensors.pop(key) for key in list(tensors) if key.startswith("adamw.")}
    for name, value in trainer.named.items():
        if f"adamw.step.{name}" in adamw:
            trainer.adamw.state[value] = {moment: adamw.pop(f"adamw.{moment}.{name}") for moment in MOMENTS}
    if tensors or adamw:
        raise SystemExit(f"{file} holds tensors that have no place here: {', '.join([*tensors, *adamw])}")
    trainer.state = type(trainer.state)(**kept["state"])
    trainer.state.place(trainer.plan)  # the checkpoint's own is of the schedule that it was saved under
    return True


def read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint says of its run, and its tensors."""
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()["run"]), {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
