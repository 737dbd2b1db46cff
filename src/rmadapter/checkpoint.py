"""A training run between two epochs, in one safetensors file: what trains, the optimiser's state, how far it is.

A method's non-persistent buffers are in it too: what it gathers while it trains (an average) and does not need after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rmadapter import adapter, provenance
from rmadapter.errors import UserError
from rmadapter.files import write_tensors
from rmadapter.method import Method

FILE = "checkpoint.safetensors"


def save(folder: Path, method: Method, optimizer: Any, scaler: Any, epochs: int, seconds: float, identity: str) -> None:
    """Replace the folder's checkpoint atomically.

    Args:
        scaler: of fp16 gradients, or None.
        epochs: how many are done.
        seconds: how long they took, by all processes that the run has had.
        identity: hash of all that decides the result.
    """
    tensors = {f"method.{name}": value.detach().cpu() for name, value in method.state_dict().items()}
    tensors |= {f"gathered.{name}": value.detach().cpu() for name, value in _gathered(method).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value).cpu() for key, value in state.items()}
    meta = {
        "epochs": str(epochs),
        "seconds": str(seconds),
        "identity": identity,
        "versions": json.dumps(provenance.versions()),
    }
    if scaler is not None:
        meta["scaler"] = json.dumps(scaler.state_dict())
    write_tensors(folder / FILE, tensors, meta)


def restore(folder: Path, method: Method, optimizer: Any, scaler: Any, identity: str) -> tuple[int, float]:
    """Load the folder's checkpoint in place.

    Returns:
        The number of epochs that are done and the seconds that they took; (0, 0) when there is no checkpoint.

    Raises:
        UserError: when it is damaged, or belongs to a run with another identity.
    """
    file = folder / FILE
    if not file.exists():
        return 0, 0.0
    try:
        with safe_open(file, "pt") as opened:
            meta = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged", got=str(error), remedy="remove it: the run then starts again") from error
    if meta.get("identity") != identity:
        raise UserError(
            f"{file} belongs to a run with other settings, data or backbone",
            remedy="give the settings that it was started with, or name another folder",
        )
    trained = {name.removeprefix("method."): value for name, value in tensors.items() if name.startswith("method.")}
    adapter.restore(method, trained, str(file))
    gathered = {name.removeprefix("gathered."): v for name, v in tensors.items() if name.startswith("gathered.")}
    if gathered.keys() != _gathered(method).keys():
        raise UserError(f"{file} is of another version of {method.name}", remedy="remove it: the run then starts again")
    for name, value in _gathered(method).items():
        value.copy_(gathered[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if scaler is not None:
        scaler.load_state_dict(json.loads(meta["scaler"]))
    return int(meta["epochs"]), float(meta["seconds"])


def _gathered(method: Method) -> dict[str, Tensor]:
    """The method's non-persistent buffers."""
    persistent = method.state_dict().keys()
    return {name: value for name, value in method.named_buffers() if name not in persistent}
