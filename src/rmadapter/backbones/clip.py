"""CLIP (Radford et al., ICML 2021) in one file: two towers of ``embed -> blocks -> pool``.

Shapes: ``b`` images or ``c`` class prompts, ``l`` rows (tokens), ``w`` width, ``d`` joint dimension.

A tower is run by the frame (``rmadapter.method``), not by itself, so that methods can act between its parts and work
can be cut exactly. The parts: ``rows`` (inputs to rows), ``enter`` (what happens to rows before the first block),
``blocks`` and ``pool`` (one row to a feature). Text: rows are token embeddings and ``enter`` adds positions. Images:
rows are patches, class embedding and positions, and ``enter`` is the first layer norm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, TowerName] = ("image", "text")


@dataclass(frozen=True)
class TowerShape:
    """The sizes of one tower."""

    width: int
    depth: int
    heads: int
    mlp: int
    """Width of the hidden layer of a block's MLP."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a CLIP, and its activation; all that is needed to build one."""

    image: TowerShape
    text: TowerShape
    joint: int
    image_size: int
    patch_size: int
    context: int
    vocabulary: int
    activation: Literal["gelu", "quick_gelu"]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Shape:
        """The inverse of ``to_dict``."""
        towers: dict[str, Any] = {name: TowerShape(**values[name]) for name in TOWERS}
        return cls(**{**values, **towers})

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold it."""
        return asdict(self)

    def tower(self, name: TowerName) -> TowerShape:
        """The shape of one tower."""
        return self.image if name == "image" else self.text


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(ln_1(x)), then + mlp(ln_2(·)).

    The caller passes u = ln_1(x) beside x, since adapters read it too.
    """

    def __init__(self, shape: TowerShape, causal: bool, activation: str) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.causal, self.activation = shape.heads, causal, activation
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, shape.mlp)
        self.proj = nn.Linear(shape.mlp, width)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """All rows: (b, l, w) to (b, l, w)."""
        q, k, v = (self._split(part) for part in self.qkv(u).chunk(3, dim=-1))
        return self._finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=self.causal))

    def one_row(self, x: Tensor, u: Tensor, index: Tensor) -> Tensor:
        """Only the row ``index`` (b,) of every sample: (b, l, w) to (b, 1, w). Equal to that row of ``forward``."""
        width = x.shape[-1]
        q_weight, kv_weight = self.qkv.weight.split([width, 2 * width])
        q_bias, kv_bias = self.qkv.bias.split([width, 2 * width])
        q = self._split(F.linear(take(u, index), q_weight, q_bias))
        k, v = (self._split(part) for part in F.linear(u, kv_weight, kv_bias).chunk(2, dim=-1))
        mask = None
        if self.causal:
            rows = torch.arange(x.shape[1], device=x.device)
            mask = (rows <= index[:, None])[:, None, None, :]  # (b, 1, 1, l)
        return self._finish(take(x, index), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def _split(self, x: Tensor) -> Tensor:
        return cast(Tensor, x.unflatten(-1, (self.heads, -1)).transpose(1, 2))  # (b, heads, l, w / heads)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = self.fc(self.ln_2(x))
        hidden = F.gelu(hidden) if self.activation == "gelu" else hidden * torch.sigmoid(1.702 * hidden)
        return cast(Tensor, x + self.proj(hidden))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Row ``index`` (b,) of every sample of x (b, l, w), as (b, 1, w)."""
    return x[torch.arange(len(x), device=x.device), index].unsqueeze(1)


class Tower(nn.Module):
    """What both towers share: their blocks, and how one row becomes a feature."""

    name: TowerName

    def __init__(self, shape: TowerShape, joint: int, causal: bool, activation: str) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape, causal, activation) for _ in range(shape.depth))
        self.ln_post = nn.LayerNorm(shape.width)
        self.projection = nn.Parameter(torch.empty(shape.width, joint))

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.shape.depth

    @property
    def width(self) -> int:
        """Channels of a row."""
        return self.shape.width

    def block(self, i: int) -> Block:
        """Block ``i``, counted from 0."""
        return cast(Block, self.blocks[i])

    def rows(self, inputs: Tensor) -> Tensor:
        """Inputs (b, …) to rows (b, l, w), before the ``tokens`` seam."""
        raise NotImplementedError

    def enter(self, rows: Tensor) -> Tensor:
        """Rows (b, l, w) after the ``tokens`` seam to the input of block 0."""
        raise NotImplementedError

    def pool(self, row: Tensor) -> Tensor:
        """The pooled row (b, w) after the last block to a feature (b, d), not normalised."""
        return cast(Tensor, self.ln_post(row) @ self.projection)


class ImageTower(Tower):
    """Pixels (b, 3, s, s) to rows: class embedding first, then patches in reading order."""

    name = "image"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.image, shape.joint, causal=False, activation=shape.activation)
        width, patch = shape.image.width, shape.patch_size
        self.patch = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty((shape.image_size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)

    def rows(self, inputs: Tensor) -> Tensor:
        patches = self.patch(inputs).flatten(2).transpose(1, 2)  # (b, l - 1, w)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([first, patches], dim=1) + self.positions

    def enter(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.ln_pre(rows))


class TextTower(Tower):
    """Token ids (c, l) to rows. Attention is causal, so rows behind the pooled one can be cut without any effect."""

    name = "text"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.text, shape.joint, causal=True, activation=shape.activation)
        self.embedding = nn.Embedding(shape.vocabulary, shape.text.width)
        self.positions = nn.Parameter(torch.empty(shape.context, shape.text.width))

    def rows(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.embedding(inputs))

    def enter(self, rows: Tensor) -> Tensor:
        return rows + self.positions[: rows.shape[1]]


class CLIP(nn.Module):
    """The two towers and the logit scale, frozen: no parameter ever requires a gradient.

    Weights come from ``load_state_dict`` with every key used and every parameter filled; nothing is initialised here.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.image = ImageTower(shape)
        self.text = TextTower(shape)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.requires_grad_(False).eval()

    def tower(self, name: TowerName) -> Tower:
        """One of the two towers."""
        return self.image if name == "image" else self.text
