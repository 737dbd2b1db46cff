"""The frame: it runs a tower's blocks through a method's seams, and does less work with the same result.

Text is cut behind the last row that is read (exact under causal attention), ``begin`` does what no seam can change once
and without a gradient, and the last block computes only the row that is pooled. Shape letters as in ``method``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rmadapter.backbones.clip import Tower, take

if TYPE_CHECKING:
    from rmadapter.method import Method

MEMORY = 1 << 30
"""Bytes of activations that text which depends on the image may hold at a time."""


@dataclass(frozen=True)
class Rows:
    """Rows on their way through a tower: frozen work is done up to block ``at``, the rest is still to do.

    ``at`` is -1 before the ``tokens`` seam. Behind the last block only the pooled row is kept.
    """

    x: Tensor
    """(b, l, w)."""
    pool: Tensor
    """(b,) the row that is pooled: 0 for images, the end token for text."""
    at: int
    valid: Tensor | None = None
    """(b, l) True for the rows that count in a local loss; None: all do."""

    def __len__(self) -> int:
        return len(self.x)

    def only(self, index: Tensor) -> Rows:
        """Some samples, by their indices; one may come more than once."""
        return Rows(self.x[index], self.pool[index], self.at, None if self.valid is None else self.valid[index])


def widen(x: Tensor) -> Tensor:
    """At least float32, where half precision would lose or overflow: norms, sums, losses."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def begin(tower: Tower, inputs: Tensor, until: int, cut: bool = True) -> Rows:
    """Inputs to the rows that enter block ``until``; -1: before the tokens seam, depth: only the pooled row is left."""
    valid = None
    if tower.name == "text":
        pool = inputs.argmax(dim=-1)  # the end token has the largest id
        if cut:
            inputs = inputs[:, : int(pool.max()) + 1]
            valid = torch.arange(inputs.shape[1], device=inputs.device) <= pool[:, None]
    else:
        pool = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    x = tower.rows(inputs)
    if until >= 0:
        x = tower.enter(x)
        for i in range(min(until, tower.depth)):
            x = _block(tower, i, x, pool)
    return Rows(x, pool, until, valid)


def finish(
    tower: Tower, rows: Rows, method: Method | None, image: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The rest of a tower: features (b, d), not normalised, and the sum of local losses (in training, if any).

    Args:
        method: whose seams act; None runs the frozen backbone.
        image: for the ``tokens`` seam: an image's feature beside every prompt, where text depends on it.
    """
    x, at = rows.x, rows.at
    name = tower.name
    touched = method.touches(name) if method else range(0)
    losses: list[Tensor] = []
    if at < 0:
        x, at = tower.enter(method.tokens(name, x, image) if method and 0 in touched else x), 0
    for i in range(at, tower.depth):
        if method is None or i not in touched:
            x = _block(tower, i, x, rows.pool)
            continue
        x = method.before(name, i, x)
        u = tower.block(i).ln_1(x)
        if method.training:
            loss = method.local(name, i, x, u)
            if loss is not None:
                losses.append(_mean(loss, rows.valid))
        last = i == tower.depth - 1
        added = method.beside(name, i, take(u, rows.pool) if last else u)
        x = tower.block(i).one_row(x, u, rows.pool) if last else tower.block(i)(x, u)
        if added is not None:
            x = x + added
    return tower.pool(x[:, 0]), torch.stack(losses).sum() if losses else None


def finish_pairs(tower: Tower, rows: Rows, method: Method, image: Tensor) -> Tensor:
    """``finish`` for every pair of an image (b, d) and a prompt (c): features (b, c, d).

    Pairs run in chunks, of a part of the classes or of several images, that hold at most ``MEMORY`` bytes. Where there
    are several chunks, training computes each again in the backward pass instead of keeping it.
    """
    shape = tower.shape
    floats = rows.x.shape[1] * shape.depth * (12 * shape.width + 3 * shape.mlp)  # that a prompt keeps for the backward
    chunks = torch.arange(len(image) * len(rows), device=image.device).split(max(1, MEMORY // (4 * floats)))

    def run(pairs: Tensor, image: Tensor) -> Tensor:
        return finish(tower, rows.only(pairs % len(rows)), method, image[pairs // len(rows)])[0]

    again = len(chunks) > 1 and torch.is_grad_enabled()
    done = [checkpoint(run, pairs, image, use_reentrant=False) if again else run(pairs, image) for pairs in chunks]
    return torch.cat(done).view(len(image), len(rows), -1)


def similarity(image: Tensor, text: Tensor) -> Tensor:
    """Inner products (b, c) of images (b, d) and texts (c, d), or texts of each image (b, c, d)."""
    return image @ text.T if text.ndim == 2 else (text @ image.unsqueeze(-1)).squeeze(-1)


def _block(tower: Tower, i: int, x: Tensor, pool: Tensor) -> Tensor:
    """A block without seams; the last one computes only the pooled row."""
    block = tower.block(i)
    u = block.ln_1(x)
    return block.one_row(x, u, pool) if i == tower.depth - 1 else block(x, u)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of values (b, l) over valid rows, in float32."""
    values = widen(values)
    if valid is None:
        return values.mean()
    return (values * valid).sum() / valid.sum()
