"""An adapter on disk: ``adapter_config.json`` and ``adapter_model.safetensors``, loaded strictly.

The config says what the tensors are for: method and its settings, the backbone with its weights' sha256, class names,
template, preprocessing, versions, scores. The tensors are what trains and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmadapter import provenance
from rmadapter.backbones import Backbone, load_backbone
from rmadapter.errors import AdapterError, BackboneError
from rmadapter.files import write_atomic, write_json
from rmadapter.method import Method
from rmadapter.methods import method_class

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1


def save(method: Method, folder: str | Path, scores: dict[str, Any] | None = None) -> Path:
    """Write an adapter into a folder; both files are replaced atomically, the config last.

    Args:
        method: as it is now; ``method.classes`` and ``method.template`` are what it was trained with.
        scores: recorded in the config, for people.
    """
    folder = Path(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in method.state_dict().items()}
    config = {
        "format": FORMAT,
        "method": method.name,
        "settings": method.settings.plain(),
        "seed": method.seed,
        "backbone": method.backbone.identity(),
        "classes": list(method.classes),
        "template": method.template,
        "versions": provenance.versions(),
        "scores": scores or {},
    }
    write_atomic(folder / TENSORS, lambda path: save_file(tensors, path))
    write_json(folder / CONFIG, config)
    return folder


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config of an adapter folder. Raises AdapterError when it is missing, damaged, or of another format."""
    file = Path(folder) / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        complete = {"method", "settings", "seed", "backbone", "classes", "template"} <= config.keys()
    except FileNotFoundError:
        raise AdapterError(f"{folder} has no {CONFIG}", remedy="name the folder that training wrote") from None
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterError(f"{file} cannot be read", got=str(error)) from error
    if config.get("format") != FORMAT or not complete:
        raise AdapterError(f"{file} is not an adapter of format {FORMAT}", got=f"format {config.get('format')!r}")
    return cast("dict[str, Any]", config)


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
    wanted = config["backbone"]
    if backbone is None:
        try:
            backbone = load_backbone(wanted["name"], wanted["pretrained"], device=device, seed=wanted["seed"])
        except BackboneError as error:
            raise AdapterError(
                f"the backbone of {folder} cannot be loaded", got=error.problem, remedy=error.remedy
            ) from error
    if backbone.sha256 != wanted["sha256"]:
        raise AdapterError(
            f"{folder} was trained on another backbone",
            got=f"{backbone.name} with weights {backbone.sha256[:12]}…",
            allowed=f"{wanted['name']} ({wanted['pretrained'] or 'own weights'}) with weights {wanted['sha256'][:12]}…",
            remedy="load the backbone that it was trained on",
        )
    method = method_class(config["method"])(backbone, seed=config["seed"], **config["settings"])
    method.classes, method.template = tuple(config["classes"]), config["template"]
    restore(method, _read(Path(folder) / TENSORS), str(folder))
    return method.eval()


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
