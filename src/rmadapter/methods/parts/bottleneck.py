"""What adapters beside blocks are made of: projections, MMA's gradient scale, and which blocks they stand beside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, PositiveInt
from torch import Tensor, nn

from rmadapter.backbones import Backbone
from rmadapter.backbones.clip import TowerName
from rmadapter.errors import SettingError


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    ends = tuple(value.split("-"))
    if len(ends) != 2:
        raise ValueError("write the first and the last block, such as 5-12")
    return ends


def _ascending(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError("the first block must not be above the last")
    return value


Range = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_split), AfterValidator(_ascending)]
"""A setting: blocks of a tower as first and last, from 1, inclusive; '5-12' as text."""


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: float, by: float) -> Tensor:
        ctx.gradient = gradient
        return x.view_as(x) if by == 1 else by * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] if ctx.gradient == 1 else grads[0] * ctx.gradient, None, None


def scale_gradient(x: Tensor, gradient: float, by: float = 1.0) -> Tensor:
    """``by * x``, whose gradient is multiplied by ``gradient`` and not by ``by``.

    Around an adapter whose output is scaled by s (s on its input's gradient, 1 on its output's), weights train as if s
    were 1 while the gradient that flows on into the tower stays exact. Source: MMA (Yang et al., CVPR 2024).
    """
    return cast(Tensor, _Scale.apply(x, gradient, by))


def scaled(adapter: Callable[[Tensor], Tensor], u: Tensor, scale: float, gradient_scale: bool = True) -> Tensor:
    """``scale * adapter(u)``, with the two gradient scales where ``gradient_scale`` says so."""
    if not gradient_scale:
        return scale * adapter(u)
    return scale_gradient(adapter(scale_gradient(u, scale)), 1.0, by=scale)


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


def adapted(backbone: Backbone, tower: TowerName, chosen: Range | None) -> range:
    """The adapted blocks of a tower, from 0; None: ``upper_blocks``. Raises SettingError for blocks that it lacks."""
    depth = backbone.tower(tower).depth
    first, last = chosen or upper_blocks(depth)
    if last > depth:
        raise SettingError(
            f"{tower}_blocks goes beyond the tower of {backbone.name}", got=f"{first}-{last}", allowed=f"1-{depth}"
        )
    return range(first - 1, last)
