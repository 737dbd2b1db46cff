"""MMA (Yang et al., CVPR 2024) written the usual way on open_clip's own modules: what ours is measured against.

Every step runs every block of both towers over every row: 197 of an image and 77 of a prompt, padding too, through
``nn.MultiheadAttention``. Adapters stand beside blocks ``first`` to the last one, and each layer norm runs once.

That module is slow on a CPU where its weights are frozen and a gradient of its rows is wanted: its projection to q, k
and v then runs as many small products. So that this does not count for more than it is, ``attention="sdpa"`` is the
same method with that projection as one product, and torch's scaled dot-product attention behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK, SCALE, BLOCKS = 32, 0.001, 8
"""As published at ViT-B/16: the last 8 of 12 blocks."""


class GradientScale(torch.autograd.Function):
    """The identity; its gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.scale, None


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Kaiming normal over the fan-out, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / outputs))
    nn.init.zeros_(layer.bias)
    return layer


class ReferenceMMA(nn.Module):
    """Images (b, 3, s, s) to logits (b, c) for the classes that it was made for.

    Args:
        clip: an open_clip model; it is frozen.
        prompts: one a class.
        attention: "module": ``nn.MultiheadAttention``, as open_clip has it; "sdpa": see above.
    """

    def __init__(
        self, clip: Any, prompts: Sequence[str], tokenizer: Any, blocks: int = BLOCKS, attention: str = "module"
    ) -> None:
        super().__init__()
        self.attention = attention
        self._clip = (clip.requires_grad_(False).eval(),)
        self.tokens: Tensor = tokenizer(list(prompts))
        self.first = len(clip.transformer.resblocks) - blocks
        widths = {"image": clip.visual.class_embedding.shape[0], "text": clip.token_embedding.weight.shape[1]}
        self.down = nn.ModuleDict({n: nn.ModuleList(linear(w, RANK) for _ in range(blocks)) for n, w in widths.items()})
        self.up = nn.ModuleDict({n: nn.ModuleList(linear(RANK, w) for _ in range(blocks)) for n, w in widths.items()})
        self.shared = nn.ModuleList(linear(RANK, RANK) for _ in range(blocks))

    def adapter(self, tower: str, i: int, u: Tensor) -> Tensor:
        """What is added to the output of the i-th adapted block."""
        h = F.relu(self.down[tower][i](GradientScale.apply(u, SCALE)))
        added = SCALE * self.up[tower][i](F.relu(self.shared[i](h)))
        return GradientScale.apply(added, 1 / SCALE)

    def run(self, tower: str, transformer: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        """All blocks of a tower."""
        for i, block in enumerate(transformer.resblocks):
            u = block.ln_1(x)
            m = x + (block.attention(u, attn_mask=mask) if self.attention == "module" else sdpa(block.attn, u, mask))
            y = m + block.mlp(block.ln_2(m))
            x = y + self.adapter(tower, i - self.first, u) if i >= self.first else y
        return x

    def forward(self, images: Tensor) -> Tensor:
        clip = self._clip[0]
        x = self.run("image", clip.visual.transformer, clip.visual._embeds(images), None)
        image = F.normalize(clip.visual.ln_post(x[:, 0]) @ clip.visual.proj, dim=-1)
        x = clip.token_embedding(self.tokens) + clip.positional_embedding
        x = clip.ln_final(self.run("text", clip.transformer, x, clip.attn_mask))
        text = x[torch.arange(len(x)), self.tokens.argmax(dim=-1)] @ clip.text_projection
        return clip.logit_scale.exp() * image @ F.normalize(text, dim=-1).T

    def ours(self) -> dict[str, nn.Parameter]:
        """Its parameters under the names of ``rmadapter.methods.mma``."""
        found: dict[str, nn.Parameter] = {}
        layers = {f"middle.{i}": layer for i, layer in enumerate(self.shared)}
        for tower in ("image", "text"):
            for i in range(len(self.shared)):
                layers[f"{tower}.{self.first + i + 1}.down"] = self.down[tower][i]
                layers[f"{tower}.{self.first + i + 1}.up"] = self.up[tower][i]
        for name, layer in layers.items():
            found |= {f"{name}.{key}": value for key, value in layer.named_parameters()}
        return found


def sdpa(module: nn.MultiheadAttention, u: Tensor, mask: Tensor | None) -> Tensor:
    """What the module computes, of (b, l, w): one projection, and torch's own attention."""
    qkv = F.linear(u, module.in_proj_weight, module.in_proj_bias).unflatten(-1, (3, module.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return module.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


def create(name: str, seed: int = 0) -> Any:
    """An open_clip model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(name)
