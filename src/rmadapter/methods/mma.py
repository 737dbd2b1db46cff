"""MMA, the Multi-Modal Adapter: bottlenecks beside the upper blocks, whose middle layer both towers share.

Source: Yang et al., CVPR 2024.

In the upper blocks i of both towers, with u = ln_1(x) (b, l, w), rank r, scale s:

    h = relu(W_down u + b)               (b, l, r)    W_down, W_up: one of each a tower and block
    h = relu(W_middle h + b)             (b, l, r)    W_middle (r, r): one a block, the same in both towers
    x' = block(x) + s (W_up h + b)       (b, l, w)
    logits = exp(scale) f t^T            (b, c)       f, t: normalised image and text features

No activation crosses between the towers: they meet in the gradient of W_middle alone. The loss is cross-entropy.

An identity divides the gradient of the added term by s on its way to the adapter, and another multiplies it by s on its
way on into x. So weights train as if s were 1, while x receives the true gradient. Without this, SGD at the published
rate and s = 0.001 learns next to nothing; AdamW, which does not heed the size of gradients, hardly notices.
"""

from __future__ import annotations

from typing import cast

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from rmadapter.backbones.clip import TowerName
from rmadapter.method import Method
from rmadapter.methods.parts.bottleneck import Range, activate, adapted, linear, scaled
from rmadapter.settings import Settings


class MMASettings(Settings):
    """The defaults are the published ones at ViT-B/16."""

    image_blocks: Range | None = None
    """Which image blocks are adapted: first-last, from 1, inclusive. None: the last min(8, 2/3 of the tower)."""
    text_blocks: Range | None = None
    """Which text blocks are adapted, likewise; towers are paired from the top of their ranges."""
    rank: PositiveInt = 32
    """r: how narrow is the bottleneck?"""
    scale: PositiveFloat = 0.001
    """s: how strongly is the adapter's output added to the block's?"""
    gradient_scale: bool = True
    """Do adapter weights train as if the scale were 1? Matters to SGD, hardly to AdamW."""
    zero_start: bool = False
    """Does the adapter start as the identity (W_up = 0)? False: as published, small only through the scale."""


class MMA(Method):
    """See the module's text. Settings: ``MMASettings``."""

    name = "mma"
    source = "Yang et al., CVPR 2024"
    Settings = MMASettings
    settings: MMASettings

    def build(self) -> None:
        self.image, self.text = self._tower("image"), self._tower("text")
        rank = self.settings.rank
        self.middle = nn.ModuleList(linear(rank, rank) for _ in range(max(len(self.image), len(self.text))))

    def _tower(self, name: TowerName) -> nn.ModuleDict:
        width, rank = self.backbone.tower(name).width, self.settings.rank
        blocks = nn.ModuleDict()
        for i in self.touches(name):
            up = linear(rank, width)
            if self.settings.zero_start:
                nn.init.zeros_(up.weight)
            blocks[str(i + 1)] = nn.ModuleDict({"down": linear(width, rank), "up": up})
        return blocks

    def touches(self, tower: TowerName) -> range:
        s = self.settings
        return adapted(self.backbone, tower, s.image_blocks if tower == "image" else s.text_blocks)

    def beside(self, tower: TowerName, i: int, u: Tensor) -> Tensor:
        layer = cast(nn.ModuleDict, getattr(self, tower)[str(i + 1)])
        middle = self.middle[i - self.touches(tower).stop]  # from the top, so that towers of unequal length meet there

        def adapter(u: Tensor) -> Tensor:
            h = activate(layer["down"](u), "relu")
            return cast(Tensor, layer["up"](activate(middle(h), "relu")))

        return scaled(adapter, u, self.settings.scale, self.settings.gradient_scale)
