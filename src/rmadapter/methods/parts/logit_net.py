"""TransMiter's net: a residual MLP between an orthogonal matrix and its transpose, on standardised logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-6
"""Added to a standard deviation that is divided by."""


class LogitNet(nn.Module):
    """Logits (b, D) to logits (b, D); the identity until it is trained.

        s = (l - μ) / (σ + 1e-6),  x = W s,  x' = x + U2 gelu(U1 LN(x) + b1) + b2,  l' = σ W^T x' + μ

    W = B exp(A - A^T) stays orthogonal: B is a buffer, drawn at random; A is strictly lower (what stands elsewhere has
    no effect), and 0 at first, as U2 and b2 are.

    Args:
        size: D.
        expansion: width of the hidden layer over D.
    """

    base: Tensor
    """B (D, D)."""

    def __init__(self, size: int, expansion: int) -> None:
        super().__init__()
        self.register_buffer("base", nn.init.orthogonal_(torch.empty(size, size)))
        self.skew = nn.Parameter(torch.zeros(size, size))
        up, down = nn.Linear(size, expansion * size), nn.Linear(expansion * size, size)
        nn.init.xavier_uniform_(up.weight)
        for parameter in down.parameters():
            nn.init.zeros_(parameter)
        self.mlp = nn.Sequential(nn.LayerNorm(size), up, nn.GELU(), down)
        self._kept: tuple[object, Tensor] | None = None

    def forward(self, logits: Tensor) -> Tensor:
        """All D refined logits."""
        with torch.autocast(logits.device.type, enabled=False):  # logits would be coarse in half precision
            s, mean, deviation = standardise(logits.to(self.base.dtype))
            w = self.matrix()
            x = s @ w.T
            x = x + self.mlp(x)
            refined: Tensor = (x @ w) * deviation + mean
        return refined

    def matrix(self) -> Tensor:
        """W (D, D). Where no gradient is wanted it is computed once, and again only when a tensor has changed."""
        if torch.is_grad_enabled() and self.skew.requires_grad:
            return self._exponential()
        state = [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in (self.base, self.skew)]
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._exponential().detach())
        return self._kept[1]

    def _exponential(self) -> Tensor:
        lower = self.skew.tril(-1)
        skew = lower - lower.T
        if skew.device.type == "mps":  # has no such function
            skew = skew.cpu()
        exponential: Tensor = torch.linalg.matrix_exp(skew).to(self.base.device)
        return self.base @ exponential


def standardise(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised logits s (b, D), and the mean and the unbiased standard deviation (b, 1) of each image's."""
    mean, deviation = logits.mean(dim=-1, keepdim=True), logits.std(dim=-1, keepdim=True)
    return (logits - mean) / (deviation + FLOOR), mean, deviation
