"""RMAdapter: a dual-branch adapter that learns a task and must rebuild the block's own features.

Source: Lin et al., AAAI 2026 (arXiv 2512.06811), by its summaries, as it has no public code. What these leave open are
settings, with defaults after MMA (Yang et al., CVPR 2024) and PromptSRC (ICCV 2023); λ1 = λ2 = 10 is our own choice.

In the upper blocks i of both towers, with u_i = ln_1(x_i) (b, l, w), rank r, hidden h, scale s:

    adaptation        h_i = act(W_down u_i + b)                     (b, l, r)
                      x_{i+1} = block_i(x_i) + s (W_up h_i + b)     (b, l, w)
    reconstruction    h~_i = act(W_down sg(u_i) + b)                the same W_down, on the detached input
                      r_i = W_2 act(W_1 h~_i + b) + b               (b, l, w), training only
    local loss        l_i = mean (r_i - sg(u_i))^2                  over images or classes, rows, channels

    L = cross-entropy + λ1 Σ l_image + λ2 Σ l_text + λ3 mean|f - f0| + λ4 mean|t - t0| + λ5 R

f, t: normalised image and text features; f0, t0: those of the frozen backbone for the same image and prompt. λ5 is 0
unless it is asked for: R (parts/retention.py) is an addition of ours.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, cast

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from rmadapter.backbones.clip import TowerName
from rmadapter.method import Method, Output, Teacher, widen
from rmadapter.methods.parts.bottleneck import Range, activate, adapted, linear, scaled
from rmadapter.methods.parts.reconstruction import Objective, row_errors
from rmadapter.methods.parts.retention import Retained, changed
from rmadapter.settings import Settings


class RMAdapterSettings(Settings):
    """Each setting answers a question; the defaults are the reference computation."""

    image_blocks: Range | None = None
    """Which image blocks are adapted: first-last, from 1, inclusive. None: the last min(8, 2/3 of the tower)."""
    text_blocks: Range | None = None
    """Which text blocks are adapted, likewise."""
    rank: PositiveInt = 32
    """r: how narrow is the bottleneck? 32 as in MMA."""
    hidden: PositiveInt | None = None
    """h: width inside the reconstruction branch's decoder. None: as the rank."""
    activation: Literal["relu", "gelu"] = "relu"
    """The nonlinearity of both branches; relu as in MMA."""
    scale: PositiveFloat = 0.001
    """s: how strongly is the adapter's output added to the block's?"""
    gradient_scale: bool = True
    """Do adapter weights train as if the scale were 1 (MMA's gradient-scale op)? Matters to SGD, hardly to AdamW."""
    zero_start: bool = False
    """Does it start as the identity (W_up = 0; fused: W_2 too)? False: Kaiming as in MMA, small by the scale."""
    shared_down: bool = True
    """Do the branches share the down-projection? If not (and detached), reconstruction cannot change predictions."""
    decoder_layers: Literal[1, 2, 3] = 2
    """Depth of the reconstruction branch's decoder; the paper finds 2 best."""
    objective: Objective = "l2"
    """Measure of reconstruction: mean square, mean absolute, or 1 - cosine a row; the paper finds l2 most stable."""
    target: Literal["normalised", "raw"] = "normalised"
    """What is rebuilt: the adapter's own input ln_1(x), or the block's raw input x with its few huge channels."""
    detach: bool = True
    """Is the local loss kept from reaching lower blocks (input and target detached)?"""
    fused: bool = False
    """Does the reconstruction also enter the forward pass, at the same scale?"""
    text_tokens: Literal["valid", "all"] = "valid"
    """Text rows in the local loss: up to the end token, or padding too (literal, and slower: text is not cut)."""
    cross_modal_shared: bool = False
    """Is there MMA's r x r projection after the down-projection, shared by the towers, paired from the top?"""
    reconstruction_image: NonNegativeFloat = 10.0
    """λ1, on the mean over elements. With 0 (and not fused) the branch is not built."""
    reconstruction_text: NonNegativeFloat = 10.0
    """λ2, likewise."""
    consistency_image: NonNegativeFloat = 10.0
    """λ3, on the mean absolute difference of normalised image features (PromptSRC's weight)."""
    consistency_text: NonNegativeFloat = 25.0
    """λ4, on that of normalised text features (PromptSRC's weight)."""
    retention: NonNegativeFloat = 0.0
    """λ5, on half the squared change of features within what is retained. With 0 it is not computed."""
    retained: Retained = "direction"
    """All of it (1 - cosine), what the batch's frozen images do not span, or what the frozen texts span."""

    later: ClassVar[tuple[str, ...]] = ("retention", "retained")

    def weight(self, tower: TowerName) -> float:
        """λ1 or λ2."""
        return self.reconstruction_image if tower == "image" else self.reconstruction_text


class DualBranch(nn.Module):
    """Down- and up-projection of one block, and the decoder that rebuilds its input where ``decode``."""

    def __init__(self, width: int, settings: RMAdapterSettings, decode: bool) -> None:
        super().__init__()
        rank, hidden, layers = settings.rank, settings.hidden or settings.rank, settings.decoder_layers
        self.activation = settings.activation
        self.down = linear(width, rank)
        self.up = linear(rank, width)
        self.decoder = nn.ModuleList()
        self.private_down = None
        if decode:
            widths = [rank, *[hidden] * (layers - 1), width]
            self.decoder.extend(linear(i, o) for i, o in pairwise(widths))
            self.private_down = None if settings.shared_down else linear(width, rank)
        added = [self.up, *(self.decoder[-1:] if settings.fused else ())]
        for layer in added if settings.zero_start else ():
            nn.init.zeros_(cast(nn.Linear, layer).weight)

    def hidden(self, u: Tensor) -> Tensor:
        """Reconstruction branch up to its last layer: (b, l, w) to (b, l, h)."""
        x = activate((self.private_down or self.down)(u), self.activation)
        for layer in self.decoder[:-1]:
            x = activate(layer(x), self.activation)
        return x


class RMAdapter(Method):
    """See the module's text. Settings: ``RMAdapterSettings``."""

    name = "rmadapter"
    source = "Lin et al., AAAI 2026"
    Settings = RMAdapterSettings
    settings: RMAdapterSettings

    def build(self) -> None:
        s = self.settings
        self.image, self.text = self._tower("image"), self._tower("text")
        longest = max(len(self.image), len(self.text))
        self.middle = nn.ModuleList(linear(s.rank, s.rank) for _ in range(longest if s.cross_modal_shared else 0))
        self.local_detached = s.detach
        self.whole_text = s.text_tokens == "all" and s.reconstruction_text > 0
        self.whole_batch = s.retention > 0 and s.retained == "outside_shots"
        self.needs_teacher = s.consistency_image > 0 or s.consistency_text > 0 or s.retention > 0

    def _tower(self, name: TowerName) -> nn.ModuleDict:
        decode = self.settings.weight(name) > 0 or self.settings.fused
        width = self.backbone.tower(name).width
        return nn.ModuleDict({str(i + 1): DualBranch(width, self.settings, decode) for i in self.touches(name)})

    def touches(self, tower: TowerName) -> range:
        s = self.settings
        return adapted(self.backbone, tower, s.image_blocks if tower == "image" else s.text_blocks)

    def branch(self, tower: TowerName, i: int) -> DualBranch:
        """The dual branch of block ``i``, counted from 0."""
        return cast(DualBranch, getattr(self, tower)[str(i + 1)])

    def beside(self, tower: TowerName, i: int, u: Tensor) -> Tensor:
        s, branch = self.settings, self.branch(tower, i)

        def adapter(u: Tensor) -> Tensor:
            h = activate(branch.down(u), s.activation)
            if s.cross_modal_shared:  # index from the top, so that towers of unequal length meet there
                h = activate(self.middle[i - self.touches(tower).stop](h), s.activation)
            added = branch.up(h)
            return added + branch.decoder[-1](branch.hidden(u)) if s.fused else cast(Tensor, added)

        return scaled(adapter, u, s.scale, s.gradient_scale)

    def local(self, tower: TowerName, i: int, x: Tensor, u: Tensor) -> Tensor | None:
        s, branch = self.settings, self.branch(tower, i)
        if s.weight(tower) == 0:
            return None
        target = u if s.target == "normalised" else x
        if s.detach:
            u, target = u.detach(), target.detach()
        with torch.autocast(u.device.type, enabled=False):  # half-precision sums over a layer would overflow
            last = cast(nn.Linear, branch.decoder[-1])
            return row_errors(branch.hidden(widen(u)), last, widen(target), s.objective)

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        s, terms = self.settings, super().terms(output, labels, teacher)
        for tower, loss in output.local.items():
            terms[f"reconstruction_{tower}"] = s.weight(tower) * loss
        if teacher is not None:
            image, text = output.features.image, output.features.text
            terms["consistency_image"] = s.consistency_image * (image - teacher.image).abs().mean()
            terms["consistency_text"] = s.consistency_text * (text - teacher.text).abs().mean()
            if s.retention > 0:
                terms["retention"] = s.retention * changed(output.features, teacher, s.retained)
        return terms

    def at_inference(self) -> int:
        """Parameters that predictions use: without the reconstruction branch, unless it is fused."""
        if self.settings.fused:
            return self.trained()
        return sum(p.numel() for name, p in self.named_parameters() if "decoder" not in name and "private" not in name)
