"""PictoCLIP: small CLIPs trained on pictogram artwork and its names, shipped with the package.

A model is a folder: ``config.json`` (shape and preprocessing), ``model.safetensors`` (our names, half precision,
computed with in float32), ``tokenizer.json`` and ``MODEL.md`` (recipe, data, attributions). ``tools/pictoclip`` made
it.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rmadapter.backbones.clip import Shape
from rmadapter.backbones.openclip import read_safetensors
from rmadapter.backbones.preprocess import Preprocess

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Pieces

FOLDER = Path(__file__).parent
TEMPLATE = "a pictogram of a {}."


def names() -> tuple[str, ...]:
    """The models that are shipped."""
    return tuple(f"pictoclip-{folder.name}" for folder in sorted(FOLDER.iterdir()) if (folder / "config.json").exists())


def create(name: str) -> tuple[Shape, dict[str, Tensor], Preprocess, PictoTokenizer]:
    """Shape, weights, preprocessing and tokenizer of a shipped model."""
    folder = FOLDER / name.removeprefix("pictoclip-")
    config = json.loads((folder / "config.json").read_text())
    shape = Shape.from_dict(config["shape"])
    weights = {key: value.to(torch.float32) for key, value in read_safetensors(folder / "model.safetensors").items()}
    tokenizer = PictoTokenizer(folder / "tokenizer.json", shape.context)
    return shape, weights, Preprocess.from_dict(config["preprocess"]), tokenizer


class PictoTokenizer:
    """CLIP's byte-pair encoding with the merges cut to those of the training names; any text encodes.

    Ids: 0 pads, the last two are start and end.
    """

    def __init__(self, file: Path, context: int) -> None:
        self.file, self.context = file, context

    @cached_property
    def _pieces(self) -> Pieces:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.file))

    def encode(self, text: str) -> list[int]:
        """The pieces of a text, without start and end."""
        return self._pieces.encode(text, add_special_tokens=False).ids

    def __call__(self, texts: list[str]) -> Tensor:
        """Texts to ids (c, context); each must fit."""
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, encoded in zip(ids, self._pieces.encode_batch(texts), strict=True):
            row[: len(encoded.ids)] = torch.tensor(encoded.ids)
        return ids
