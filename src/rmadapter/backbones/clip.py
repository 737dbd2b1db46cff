"""CLIP (Radford et al., ICML 2021) in one file: two towers of ``embed -> blocks -> pool``.

Shapes: ``b`` images or ``c`` class prompts, ``l`` rows (tokens), ``w`` width, ``d`` joint dimension.

A tower is run by the frame (``rmadapter.frame``), not by itself, so that methods can act between its parts and work
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

from rmadapter.backbones.packing import Packed, attend, attend_last

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, TowerName] = ("image", "text")
QUICK = 1.702
"""Of OpenAI's activation, x sigmoid(1.702 x)."""


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

    def forward(self, x: Tensor, u: Tensor, packed: Packed | None = None) -> Tensor:
        """All rows: (b, l, w) to (b, l, w); those of a text tower may be ``packed``."""
        qkv = self._heads(self.qkv(u), 3)
        if packed is not None:
            return self._finish(x, attend(qkv, packed))
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))  # (b, heads, l, w / heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self._finish(x, attended.transpose(1, 2).flatten(2))

    def pooled(self, x: Tensor, u: Tensor, packed: Packed | None = None) -> Tensor:
        """Only the rows that are pooled: (b, l, w) to (b, 1, w), or (b, c, w). Equal to those rows of ``forward``."""
        if packed is not None and packed.whole:
            return pooled_rows(self(x, u, packed), packed)
        if packed is None:
            return self._finish(pooled_rows(x), self._first(u))
        width = x.shape[-1]
        q_weight, kv_weight = self.qkv.weight.split([width, 2 * width])
        q_bias, kv_bias = self.qkv.bias.split([width, 2 * width])
        q = self._heads(F.linear(pooled_rows(u, packed), q_weight, q_bias), 1)
        kv = self._heads(F.linear(u, kv_weight, kv_bias), 2)
        return self._finish(pooled_rows(x, packed), attend_last(q[:, :, 0], kv, packed))

    def _first(self, u: Tensor) -> Tensor:
        """Attention of an image's first row: (b, l, w) to (b, 1, w), without the keys and values of all rows.

        A score q (W_k u_j + b_k) is (q W_k) u_j and a number that is the same for all j, which the softmax leaves out.
        A mean of values W_v u_j + b_v is W_v times that of u_j, and b_v. Autocast is left: float32 is nearer, and costs
        little where so little is computed.
        """
        (q_weight, k_weight, v_weight), (q_bias, _, v_bias) = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        with torch.autocast(u.device.type, enabled=False):
            u = u.to(self.qkv.weight.dtype)
            q = F.linear(u[:, 0], q_weight, q_bias).unflatten(-1, (self.heads, -1))  # (b, heads, w / heads)
            asked = torch.einsum("bhc,hcw->bhw", q, k_weight.unflatten(0, (self.heads, -1)))
            found = F.scaled_dot_product_attention(asked, u, u, scale=q.shape[-1] ** -0.5)  # (b, heads, w)
            values = torch.einsum("bhw,hcw->bhc", found, v_weight.unflatten(0, (self.heads, -1)))
            return values.flatten(1).add(v_bias).unsqueeze(1)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        return cast(Tensor, x.unflatten(-1, (parts, self.heads, -1)))  # (b, l, parts, heads, w / heads)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out(attended)
        hidden = self.ln_2(x)
        if self.activation == "gelu":
            return cast(Tensor, x + self.proj(F.gelu(self.fc(hidden))))
        # h sigmoid(a h) is silu(a h) / a. The product takes the first factor and the sum the second, so that one pass
        # over the wide rows is left, and one tensor of them is kept for the backward pass.
        wide = torch.addmm(QUICK * self.fc.bias, hidden.flatten(0, -2), self.fc.weight.T, alpha=QUICK)
        wide = F.silu(wide, inplace=not wide.requires_grad)
        product = F.linear(wide, self.proj.weight).unflatten(0, x.shape[:-1])
        return torch.add(x, product, alpha=1 / QUICK).add_(self.proj.bias)


def pooled_rows(x: Tensor, packed: Packed | None = None) -> Tensor:
    """The rows that are pooled: the first one of every image (b, 1, w), or the last ones of all prompts (b, c, w)."""
    return x[:, :1] if packed is None else x[:, packed.last]


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

    def enter(self, rows: Tensor, packed: Packed | None = None) -> Tensor:
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

    def enter(self, rows: Tensor, packed: Packed | None = None) -> Tensor:
        return cast(Tensor, self.ln_pre(rows))


class TextTower(Tower):
    """Token ids (c, l), or (1, l) of packed prompts, to rows. Attention is causal: see ``packing``."""

    name = "text"

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.text, shape.joint, causal=True, activation=shape.activation)
        self.embedding = nn.Embedding(shape.vocabulary, shape.text.width)
        self.positions = nn.Parameter(torch.empty(shape.context, shape.text.width))

    def rows(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.embedding(inputs))

    def enter(self, rows: Tensor, packed: Packed | None = None) -> Tensor:
        return rows + (self.positions[: rows.shape[1]] if packed is None else self.positions[packed.position])


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
