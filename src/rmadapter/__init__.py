"""rmadapter: teach a frozen CLIP new classes from a handful of images, without making it forget the rest."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmadapter.adapter import load, save
    from rmadapter.backbones import Backbone, load_backbone
    from rmadapter.data import Task, load_task
    from rmadapter.errors import UserError
    from rmadapter.evaluation import Scores, evaluate, harmonic_mean
    from rmadapter.method import Method
    from rmadapter.methods.rmadapter import RMAdapter
    from rmadapter.methods.zero_shot import ZeroShot
    from rmadapter.predictor import Prediction, Predictor
    from rmadapter.train import TrainSettings, fit

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that `import rmadapter` is quick and without torch.
_HOME = {
    "Backbone": "backbones",
    "Method": "method",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "RMAdapter": "methods.rmadapter",
    "Scores": "evaluation",
    "Task": "data",
    "TrainSettings": "train",
    "UserError": "errors",
    "ZeroShot": "methods.zero_shot",
    "evaluate": "evaluation",
    "fit": "train",
    "harmonic_mean": "evaluation",
    "load": "adapter",
    "load_backbone": "backbones",
    "load_task": "data",
    "save": "adapter",
}

__all__ = [
    "Backbone",
    "Method",
    "Prediction",
    "Predictor",
    "RMAdapter",
    "Scores",
    "Task",
    "TrainSettings",
    "UserError",
    "ZeroShot",
    "evaluate",
    "fit",
    "harmonic_mean",
    "load",
    "load_backbone",
    "load_task",
    "save",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"rmadapter.{_HOME[name]}"), name)
        globals()[name] = value  # over the submodule of the same name, which importing it has put here
        return value
    raise AttributeError(f"module 'rmadapter' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
