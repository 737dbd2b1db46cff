"""CLIP-Adapter's bottleneck behind a tower, and its blend with the feature that goes in."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rmadapter.method import widen

Share = Annotated[float, Field(ge=0, le=1)]
"""A setting: how much of a feature the adapter makes."""


class Adapter(nn.Module):
    """(…, d) to (…, d), not negative: relu(W_2 relu(W_1 x)), W_1 (d / reduction, d); initial values are torch's."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.down = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A(x)."""
        return F.relu(self.up(F.relu(self.down(x))))


def blend(adapter: Adapter | None, x: Tensor, share: float) -> Tensor:
    """Blend: share A(x) + (1 - share) x for features (…, d), not normalised; x where there is no adapter."""
    if adapter is None:
        return x
    x = widen(x)
    blended: Tensor = share * adapter(x) + (1 - share) * x
    return blended
