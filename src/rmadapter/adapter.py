"""An adapter on disk: ``adapter_config.json`` and ``adapter_model.safetensors``, loaded strictly.

The config says what the tensors are for: method and its settings, the backbone with its weights' sha256, class names,
template, preprocessing, versions, scores. The tensors are what trains and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rmadapter import provenance
from rmadapter.backbones import Backbone, load_backbone
from rmadapter.errors import AdapterError, BackboneError, TrainingError
from rmadapter.files import LOCK, locked, write_json, write_tensors
from rmadapter.method import Method
from rmadapter.methods import method_class
from rmadapter.settings import Seed, Settings

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


class Identity(Settings):
    """The backbone that an adapter belongs to."""

    name: str
    """What ``load_backbone`` takes."""
    pretrained: str | None
    """Likewise."""
    seed: int
    """Of random weights."""
    sha256: str
    """Of the weights."""
    shape: dict[str, Any]
    """Sizes and activation."""
    preprocess: dict[str, Any]
    """Size, crop, mean and standard deviation of its images."""


class Config(Settings):
    """``adapter_config.json``."""

    format: Literal[1] = 1
    """Of this file."""
    method: str
    """Its name."""
    settings: dict[str, Any]
    """All of the method's settings."""
    seed: Seed
    """Of the initial values."""
    backbone: Identity
    """What it was trained on."""
    classes: tuple[str, ...]
    """Class names it was trained with."""
    template: str
    """The prompt it was trained with."""
    versions: dict[str, str]
    """Of Python and the main packages."""
    temperature: PositiveFloat | None = None
    """What logits are divided by, fitted on validation items; none: never fitted."""
    scores: dict[str, Any] = {}
    """Scores so far, by task and classes (and val, if not of test items), each with versions and machine."""


def save(method: Method, folder: str | Path) -> Path:
    """Write an adapter into a folder; both files are replaced atomically, the config last.

    Args:
        method: as it is now; ``method.classes`` and ``method.template`` are what it was trained with.

    Raises:
        TrainingError: when a tensor is not finite, naming it; nothing is written then.
    """
    folder = Path(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in method.state_dict().items()}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise TrainingError(f"{name} is not finite after training", remedy="lower --train.lr, or train in fp32")
    config = Config(
        method=method.name,
        settings=method.settings.plain(),
        seed=method.seed,
        backbone=Identity(**method.backbone.identity()),
        classes=method.classes,
        template=method.template,
        versions=provenance.versions(),
        temperature=None if method.temperature == 1 else method.temperature,
    )
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / CONFIG, config.plain())
    return folder


def is_whole(folder: Path) -> bool:
    """Whether both files of an adapter are there: a run is finished then."""
    return (folder / TENSORS).exists() and (folder / CONFIG).exists()


def read_config(folder: str | Path) -> Config:
    """The config of an adapter folder. Raises AdapterError when it is missing, damaged, or of another format."""
    return Config.read(Path(folder) / CONFIG, AdapterError)


def record(folder: str | Path, key: str, scores: dict[str, Any]) -> None:
    """Put test scores into an adapter's config, with what they were computed with."""
    entry = {**scores, "versions": provenance.versions()}
    _change(folder, lambda config: {"scores": {**config.scores, key: entry}})


def record_temperature(folder: str | Path, temperature: float) -> None:
    """Put a fitted temperature into an adapter's config; ``load`` gives it to the method."""
    _change(folder, lambda _: {"temperature": temperature})


def _change(folder: str | Path, change: Callable[[Config], dict[str, Any]]) -> None:
    """Change a config while no other process does: an adapter may be evaluated on several data sets at once."""
    with locked(Path(folder) / LOCK):
        config = read_config(folder)
        write_json(Path(folder) / CONFIG, Config.parse({**config.plain(), **change(config)}, "config").plain())


def load(folder: str | Path, *, backbone: Backbone | None = None, device: str = "cpu") -> Method:
    """A trained method from its folder.

    Args:
        folder: what ``fit(…, out=folder)`` or ``rmadapter train --out`` wrote.
        backbone: an already loaded one; None: loaded by the name in the config.
        device: where to put a backbone that is loaded here.

    Raises:
        AdapterError: naming what differs, when the backbone's weights, the method or a tensor do not fit.
    """
    config = read_config(folder)
    wanted = config.backbone
    if backbone is None:
        try:
            backbone = load_backbone(wanted.name, wanted.pretrained, device=device, seed=wanted.seed)
        except BackboneError as error:
            raise AdapterError(
                f"the backbone of {folder} cannot be loaded", got=error.problem, remedy=error.remedy
            ) from error
    _check_backbone(backbone, wanted, folder)
    method = method_class(config.method)(backbone, seed=config.seed, **config.settings)
    method.start(config.classes, config.template)
    method.temperature = config.temperature or 1.0
    restore(method, _read(Path(folder) / TENSORS), str(folder))
    return method.eval()


def _check_backbone(backbone: Backbone, wanted: Identity, folder: str | Path) -> None:
    """Equal weights are not enough: another activation or preprocessing computes something else with them."""
    given = Identity.parse(json.loads(json.dumps(backbone.identity())), "backbone")
    for part in ("sha256", "shape", "preprocess"):
        if getattr(given, part) != getattr(wanted, part):
            raise AdapterError(
                f"{folder} was trained on another backbone: its {part} differs",
                got=f"{backbone.name}, {getattr(given, part)}",
                allowed=f"{wanted.name} ({wanted.pretrained}), {getattr(wanted, part)}",
                remedy="load the backbone that it was trained on",
            )


def restore(method: Method, tensors: dict[str, Tensor], where: str) -> None:
    """Put tensors into a method; each must fit. Raises AdapterError naming the first that is missing or left over."""
    expected = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise AdapterError(
                f"{where}: tensor {name!r} does not fit method {method.name}",
                got=given.get(name, "missing"),
                allowed=expected.get(name, "no such tensor"),
            )
    method.load_state_dict(tensors, strict=True)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{file} is missing or damaged", got=str(error), remedy="restore it, or train again"
        ) from error
