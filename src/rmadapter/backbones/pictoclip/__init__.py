"""PictoCLIP: small CLIPs trained on pictogram artwork and its names, shipped with the package.

A model is a folder: ``config.json`` (shape, preprocessing, token ids) and ``model.safetensors`` (our names, half
precision, computed with in float32).
"""

from __future__ import annotations

import json
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmadapter.backbones.clip import Shape
from rmadapter.backbones.openclip import read_safetensors
from rmadapter.backbones.preprocess import Preprocess

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
    return shape, weights, Preprocess.from_dict(config["preprocess"]), PictoTokenizer(config["tokens"], shape.context)


class PictoTokenizer:
    """CLIP's byte-pair encoding with the vocabulary cut to the pieces of the training names.

    Ids: 0 pads, 1 stands for a piece that training never saw, the last two are start and end.
    """

    UNKNOWN = 1

    def __init__(self, pieces: list[int], context: int) -> None:
        self.context = context
        self.ids = {piece: index + 2 for index, piece in enumerate(pieces)}
        self.start, self.end = len(pieces) + 2, len(pieces) + 3

    @cached_property
    def _bpe(self) -> Any:
        from open_clip.tokenizer import SimpleTokenizer

        return SimpleTokenizer()

    def encode(self, text: str) -> list[int]:
        """The pieces of a text, without start and end."""
        return [self.ids.get(piece, self.UNKNOWN) for piece in self._bpe.encode(text)]

    def __call__(self, texts: list[str]) -> Tensor:
        """Texts to ids (c, context); warns of words with pieces that the model never saw."""
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in enumerate(texts):
            pieces = self.encode(text)
            ids[row, : len(pieces) + 2] = torch.tensor([self.start, *pieces, self.end])
        unknown = [text for text, row in zip(texts, ids.tolist(), strict=True) if self.UNKNOWN in row]
        if unknown:
            shown = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            warnings.warn(f"PictoCLIP never saw some words of {shown}: zero-shot knows nothing of them", stacklevel=2)
        return ids
