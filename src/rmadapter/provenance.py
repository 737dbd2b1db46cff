"""What a number was computed with: versions, machine kind, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

PACKAGES = ("rmadapter", "torch", "torchvision", "open_clip_torch", "accelerate", "pillow", "numpy")


def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def machine(device: str) -> dict[str, Any]:
    """Kind of machine and the device computed on, without anything that names it."""
    import torch

    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
