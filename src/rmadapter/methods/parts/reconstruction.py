"""How far a linear layer's output lies from a target, row by row, without keeping an output that is as large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Objective = Literal["l2", "l1", "cosine"]
"""A setting: mean square, mean absolute, or 1 - cosine of a row."""
ROWS = 256
"""Rows of which the difference from the target is there at once: of a few hundred channels they stay in a CPU's cache,
where three passes over them cost less than one over main memory."""
LARGE = 1 << 20
"""Numbers in a target from which on that pays: below, all of it is in the cache, and parts are only more calls."""


def row_errors(h: Tensor, last: nn.Linear, target: Tensor, objective: Objective) -> Tensor:
    """The error of ``last(h)`` (b, l, w) for the target (b, l, w), by row (b, l); h (b, l, h).

    In l2 against a large target without a gradient the difference is computed a few rows at a time, again in the
    backward pass, and never kept. (Multiplied out, |W h|^2 - 2 t W h + |t|^2 would need no difference, but cancels: in
    float32 a row's error of 1e-4 |t|^2 would be known to two digits.)
    """
    if objective == "l2" and not target.requires_grad and target.numel() >= LARGE:
        weight = torch.cat([last.weight, last.bias[:, None]], dim=1)  # the bias meets a channel of ones
        return cast(Tensor, _SquaredErrors.apply(F.pad(h, (0, 1), value=1.0), weight, target))
    rebuilt = last(h)
    if objective == "cosine":
        return 1 - F.cosine_similarity(rebuilt, target, dim=-1)
    measure = F.mse_loss if objective == "l2" else F.l1_loss
    return measure(rebuilt, target, reduction="none").mean(dim=-1)


class _SquaredErrors(torch.autograd.Function):
    """mean (W h - t)^2 over channels: h (…, k), W (w, k), t (…, w), of one dtype, to (…)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight, target)
        norms = h.new_empty(h.shape[:-1].numel())
        for rows, difference in _differences(h, weight, target):
            torch.linalg.vector_norm(difference, dim=-1, out=norms[rows])
        return norms.square_().div_(len(weight)).view(h.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        h, weight, target = ctx.saved_tensors
        factor = grads[0].reshape(-1, 1) * (2 / len(weight))
        to_h, to_weight = torch.empty_like(h.flatten(0, -2)), torch.zeros_like(weight)
        for rows, difference in _differences(h, weight, target):
            difference *= factor[rows]
            torch.mm(difference, weight, out=to_h[rows])
            to_weight.addmm_(difference.T, h.flatten(0, -2)[rows])
        return to_h.view(h.shape), to_weight, None


def _differences(h: Tensor, weight: Tensor, target: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """W h - t of some rows after others, all in the same memory; a GPU's cache is no reason for parts."""
    h, target = h.flatten(0, -2), target.flatten(0, -2)
    most = ROWS if h.device.type == "cpu" else max(1, len(h))
    memory = target.new_empty(min(most, len(h)), len(weight))
    for first in range(0, len(h), most):
        rows = slice(first, min(first + most, len(h)))
        yield rows, torch.addmm(target[rows], h[rows], weight.T, beta=-1, out=memory[: rows.stop - first])
