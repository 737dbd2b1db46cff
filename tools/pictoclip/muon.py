"""Muon (Jordan et al., 2024) in float32, its work shared among the processes.

Each momentum matrix is replaced by the nearest orthogonal one before the step. ``torch.optim.Muon`` computes in
bfloat16, which CPUs without matrix units for it run at a fraction of the speed of float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

MOMENTUM = 0.95
DECAY = 0.05
STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices of the same row and column spaces, by Newton-Schulz steps: (n, a, b).

    A step is x <- p(x x') x. For oblong matrices the polynomials are multiplied up first, since the products of the
    small squares cost less than two with the whole matrix in each step.
    """
    first, second, third = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).contiguous()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.shape[1] == x.shape[2]:
        for _ in range(STEPS):
            square = torch.bmm(x, x.mT)
            x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=second, alpha=third), x, beta=first)
        return x
    square = torch.bmm(x, x.mT)
    unit = first * torch.eye(x.shape[1])
    product = torch.eye(x.shape[1]).expand_as(square)
    for _ in range(STEPS):
        factor = torch.baddbmm(square, square, square, beta=second, alpha=third) + unit
        product = torch.bmm(factor, product)
        square = torch.bmm(factor, torch.bmm(factor, square))
    x = torch.bmm(product, x)
    return x.mT if tall else x


class Muon:
    """For matrices only; a fused qkv weight counts as three.

    Args:
        parameters: by name, the same on every process.
        rank, processes: each process orthogonalises its share, and the results are summed.
    """

    def __init__(self, parameters: Mapping[str, Tensor], rank: int, processes: int) -> None:
        self.parameters, self.rank, self.processes = parameters, rank, processes
        self.momentum = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self._steps = torch.zeros(sum(value.numel() for value in parameters.values()))
        self._views = dict(zip(parameters, self._split(), strict=True))

    def _split(self) -> list[Tensor]:
        values = list(self.parameters.values())
        parts = self._steps.split([value.numel() for value in values])
        return [part.view_as(value) for part, value in zip(parts, values, strict=True)]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step along the gradients."""
        shares: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._steps.zero_()
        for name, value in self.parameters.items():
            assert value.grad is not None
            momentum = self.momentum[name].lerp_(value.grad, 1 - MOMENTUM)
            update = value.grad.lerp(momentum, MOMENTUM)
            parts = 3 if value.shape[0] == 3 * value.shape[1] else 1
            for given, into in zip(update.chunk(parts), self._views[name].chunk(parts), strict=True):
                shares[given.shape[0], given.shape[1]].append((given, into))
        for shape, pairs in shares.items():
            mine = pairs[self.rank :: self.processes]
            if mine:
                found = orthogonal(torch.stack([given for given, _ in mine])) * (0.2 * max(shape) ** 0.5)
                for (_, into), matrix in zip(mine, found, strict=True):
                    into.copy_(matrix)
        if self.processes > 1:
            dist.all_reduce(self._steps)
        for name, value in self.parameters.items():
            value.mul_(1 - rate * DECAY).add_(self._views[name], alpha=-rate)
