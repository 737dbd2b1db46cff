"""Backbones: frozen CLIPs with their tokenizer and preprocessing, loaded by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rmadapter.backbones import openclip, pictoclip
from rmadapter.backbones.clip import CLIP, Shape, Tower, TowerName
from rmadapter.backbones.preprocess import Preprocess
from rmadapter.data.task import PHOTO
from rmadapter.errors import BackboneError

__all__ = ["Backbone", "Tokenizer", "backbone_names", "load_backbone", "outline", "recipe_variant"]


class Tokenizer(Protocol):
    """Texts to ids (c, context): start, pieces, end, then zeros; the end has the largest id of a row."""

    def __call__(self, texts: list[str]) -> Tensor: ...

    def encode(self, text: str) -> list[int]:
        """The pieces of a text, without start and end."""
        ...


@dataclass
class Backbone:
    """A frozen CLIP, and what is needed to feed it.

    Args:
        clip: the two towers; no parameter requires a gradient, and nothing in this package writes to them.
        name, pretrained, seed: what ``load_backbone`` makes the same backbone from; the seed matters to random weights.
        template: the prompt that these weights know best; a task's own template goes before it.
    """

    clip: CLIP
    name: str
    pretrained: str | None
    seed: int
    preprocess: Preprocess
    tokenizer: Tokenizer = field(repr=False)
    template: str = PHOTO

    @property
    def shape(self) -> Shape:
        """Sizes of the towers."""
        return self.clip.shape

    @property
    def variant(self) -> str:
        """Which section of the shipped recipes suits this backbone; see ``recipe_variant``."""
        return recipe_variant(self.name)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip.logit_scale.device

    def tower(self, name: TowerName) -> Tower:
        """The image or the text tower."""
        return self.clip.tower(name)

    def to(self, device: str | torch.device) -> Backbone:
        """Move the weights, in place."""
        self.clip.to(device)
        return self

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to ids (c, context) on the backbone's device. Raises BackboneError for a text that does not fit."""
        for text in texts:
            length = len(self.tokenizer.encode(text)) + 2
            if length > self.shape.context:
                raise BackboneError(
                    f"a prompt is too long for {self.name}",
                    got=f"{length} tokens: {text!r}",
                    allowed=f"at most {self.shape.context} tokens",
                    remedy="shorten the class name or the template",
                )
        return self.tokenizer(list(texts)).to(self.device)

    @cached_property
    def sha256(self) -> str:
        """Hash of all weights (names, shapes, float32 bytes): the identity that adapters are bound to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.clip.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """What an adapter records of its backbone."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "seed": self.seed,
            "sha256": self.sha256,
            "shape": self.shape.to_dict(),
            "preprocess": self.preprocess.to_dict(),
        }


def backbone_names() -> tuple[str, ...]:
    """Names of the backbones that are inside the package."""
    return pictoclip.names()


def recipe_variant(name: str) -> str:
    """'pictograms' for the small backbones inside the package, '' (the published settings) for all others.

    Published settings are tuned to ViT-B/16 and do not move a tower of width 128; see docs/decisions.
    """
    return "pictograms" if name in backbone_names() else ""


def load_backbone(name: str, pretrained: str | None = "default", *, device: str = "cpu", seed: int = 0) -> Backbone:
    """A backbone by name.

    Args:
        name: ``pictoclip-s`` or ``pictoclip-m`` (inside the package), any CLIP-shaped open_clip model (``ViT-B-16``),
            ``hf-hub:owner/model``, or a local folder in open_clip's layout.
        pretrained: a tag of open_clip, a ``.safetensors`` file, or None for random weights. The default is ``openai``
            for open_clip models; names that carry their own weights take no other value.
        device: where to put the weights.
        seed: of random weights.

    Raises:
        BackboneError: for an unknown name or tag, weights that do not fit, or a model that is not shaped like CLIP.
    """
    if name in pictoclip.names():
        _own_weights_only(name, pretrained)
        return build(pictoclip.create(name), name, pretrained, seed, pictoclip.TEMPLATE).to(device)
    if _is_folder(name):
        name = f"local-dir:{Path(name.removeprefix('local-dir:')).resolve()}"
    if name.startswith(openclip.OWN_WEIGHTS):
        _own_weights_only(name, pretrained)
        parts = openclip.create(name, None, seed)
    else:
        pretrained = "openai" if pretrained == "default" else pretrained
        if pretrained is not None and pretrained.endswith((".pt", ".pth", ".bin", ".ckpt")):
            raise BackboneError(
                "weights are read from safetensors files only, since other formats can run code when they are opened",
                got=pretrained,
                remedy="convert it once: save_file(torch.load(FILE, weights_only=True), 'OUT.safetensors')",
            )
        if pretrained is not None and pretrained.endswith(".safetensors"):
            pretrained = str(Path(pretrained).resolve())  # recorded in adapters, which are loaded from anywhere
        parts = openclip.create(name, pretrained, seed)
    return build(parts, name, pretrained, seed).to(device)


def outline(name: str) -> Backbone:
    """A backbone to count what methods train on it: the weights of a model that open_clip knows by name are not filled.

    Raises:
        BackboneError: as ``load_backbone``, which loads all others.
    """
    if name in pictoclip.names() or name.startswith(openclip.OWN_WEIGHTS) or _is_folder(name):
        return load_backbone(name)
    shape, tokenizer = openclip.outline(name)
    with torch.device("meta"):
        clip = CLIP(shape).requires_grad_(False).eval()
    preprocess = Preprocess(shape.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "shortest")
    return Backbone(clip.to_empty(device="cpu"), name, None, 0, preprocess, tokenizer)  # memory that nobody writes to


def _is_folder(name: str) -> bool:
    """Does a name mean a folder? One that is only called like a model (a run's, say) does not hide that model."""
    folder = Path(name.removeprefix("local-dir:"))
    if not folder.is_dir():
        return False
    return name.startswith("local-dir:") or (folder / openclip.CONFIG).is_file() or not openclip.is_known(name)


def _own_weights_only(name: str, pretrained: str | None) -> None:
    if pretrained != "default":
        raise BackboneError(f"{name} has weights of its own", got=f"pretrained={pretrained!r}", remedy="leave it out")


Parts = tuple[Shape, dict[str, Tensor], Preprocess, Tokenizer]
"""What a backbone is made of; the weights are under our names, in float32."""


def build(parts: Parts, name: str, pretrained: str | None, seed: int = 0, template: str = PHOTO) -> Backbone:
    """A backbone from its parts. Raises BackboneError unless the weights fill the shape exactly."""
    shape, weights, preprocess, tokenizer = parts
    with torch.device("meta"):
        clip = CLIP(shape)
    expected = {key: tuple(value.shape) for key, value in clip.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    if expected != given:
        wrong = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        lines = [
            f"{key}: needs {expected.get(key, 'no such tensor')}, has {given.get(key, 'nothing')}" for key in wrong
        ]
        raise BackboneError(
            f"the weights of {name} do not fill its shape",
            got=f"{len(wrong)} tensors differ, such as {'; '.join(lines[:3])}",
        )
    clip.load_state_dict(weights, strict=True, assign=True)
    clip.requires_grad_(False).eval()
    return Backbone(clip, name, pretrained, seed, preprocess, tokenizer, template)
