"""Small modules that adapters are made of, and the gradient scale of MMA."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.scale, None


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """The identity, whose gradient is multiplied by ``scale``.

    Around an adapter whose output is scaled by s (s on its input, 1 / s on its scaled output), weights train
    as if s were 1 while the gradient that flows on into the tower stays exact. Source: MMA (Yang et al., CVPR 2024).
    """
    return cast(Tensor, _ScaleGradient.apply(x, scale))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A projection with MMA's initial values: Kaiming normal over the fan-out, std sqrt(2 / outputs), and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / outputs))
    nn.init.zeros_(layer.bias)
    return layer


def activate(x: Tensor, activation: str) -> Tensor:
    """'relu' or 'gelu'."""
    return F.relu(x) if activation == "relu" else F.gelu(x)


def upper_blocks(depth: int) -> tuple[int, int]:
    """The default range of adapted blocks, 1-based and inclusive: the last min(8, 2/3 of the tower).

    12 blocks give 5..12 as published, 24 give 17..24, 6 give 3..6.
    """
    return depth - max(1, min(8, 2 * depth // 3)) + 1, depth
