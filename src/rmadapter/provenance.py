"""What a number was computed with: versions, machine kind, threads."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("rmadapter", "torch", "torchvision", "open_clip_torch", "accelerate", "pillow", "numpy")
OPTIONAL = ("scikit-learn",)
"""Linear probes are fitted by it."""


def versions() -> dict[str, str]:
    """Python's and the main packages' versions, and those of optional packages that are installed."""
    found = {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    for name in OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


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


@cache
def commit() -> str | None:
    """The commit of the checkout that the package runs from, with + where files differ from it; None outside of one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        said = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(said, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None


def reset_peak_memory(device: str) -> None:
    """Begin to measure; see ``peak_memory``."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # other systems, and sandboxes: the peak is then that of the whole process
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: str) -> float | None:
    """MiB at most since ``reset_peak_memory``: of the device where it is CUDA, else of this process; None: unknown."""
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 2**10, 1) for line in lines if line.startswith("VmHWM:")), None)
