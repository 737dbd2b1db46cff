"""The frame: it runs a tower's blocks through a method's seams, and does less work with the same result.

Prompts are one sequence of rows: what all begin with once, and nothing behind the row that is pooled (``packing``).
``begin`` does what no seam can change once and without a gradient. The last block computes only the rows that are
pooled. A local loss that reaches no other block is differentiated on the spot. Text that would hold too many bytes for
the backward pass runs in parts, each of which is computed again there. Shape letters as in ``method``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from rmadapter.backbones.clip import Tower, pooled_rows
from rmadapter.backbones.packing import Packed, pack

if TYPE_CHECKING:
    from rmadapter.method import Method

MEMORY = 2 << 30
"""Bytes of activations that a tower may keep for the backward pass; for images on a CPU see ``gradients``."""
KEPT = 10
"""Widths of a row that a block keeps beside its hidden layer: x, u, q, k, v, what shared rows add, attention, sum."""


@dataclass(frozen=True)
class Rows:
    """Rows on their way through a tower: frozen work is done up to block ``at``, the rest is still to do.

    ``at`` is -1 before the ``tokens`` seam. Behind the last block only the pooled rows are kept.
    """

    x: Tensor
    """(b, l, w); of text (1, l, w), all prompts."""
    at: int
    past: Tensor | None = None
    """What comes out of block ``at`` before a method adds to it, where no seam changes what goes in."""
    packed: Packed | None = None
    """Where the prompts lie in x; None: images."""

    def some(self, images: slice) -> Rows:
        """Of some images."""
        return replace(self, x=self.x[images], past=None if self.past is None else self.past[images])

    def parts(self, most: int) -> Iterator[Rows]:
        """Prompts that have at most so many rows together, one at least; together they are all, in their order here."""
        if self.packed is None or self.x.shape[1] <= most or not self._whole(self.x):
            yield self
            return
        for index, prompts, packed in self.packed.split(most):
            past = None if self.past is None else self.past[:, index if self._whole(self.past) else prompts]
            yield Rows(self.x[:, index], self.at, past, packed)

    def _whole(self, x: Tensor) -> bool:
        """Are all rows there, not the pooled ones alone?"""
        return self.packed is None or x.shape[1] == len(self.packed.position)


class Pooled(NamedTuple):
    """What comes out of a tower."""

    features: Tensor
    """(b, d), not normalised. Of text (1, c, d), in the order in which prompts lie in the rows, or as ``finish_text``
    says."""
    local: Tensor | None
    """The sum of local losses, in training, if there are any."""


def kept(tower: Tower, rows: Rows) -> int:
    """Bytes that the rest of a tower keeps of one sequence for the backward pass, about."""
    shape, blocks = tower.shape, max(1, tower.depth - max(rows.at, 0))
    return 4 * rows.x.shape[1] * blocks * (KEPT * shape.width + shape.mlp)


def widen(x: Tensor) -> Tensor:
    """At least float32, where half precision would lose or overflow: norms, sums, losses."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def begin(tower: Tower, inputs: Tensor, until: int, cut: bool = True, past: bool = False) -> Rows:
    """Inputs to the rows that enter block ``until``; -1: before the tokens seam, depth: only pooled rows are left.

    Args:
        cut: leave out text rows behind the end token.
        past: run block ``until`` too, beside the rows that enter it.
    """
    packed = None
    if tower.name == "text":
        inputs, packed = pack(inputs, cut)
    x = tower.rows(inputs)
    if until < 0:
        return Rows(x, until, packed=packed)
    x = tower.enter(x, packed)
    for i in range(until):
        x = _block(tower, i, x, tower.block(i).ln_1(x), packed)
    further = _block(tower, until, x, tower.block(until).ln_1(x), packed) if past and until < tower.depth else None
    return Rows(x, until, further, packed)


def finish(tower: Tower, rows: Rows, method: Method | None, image: Tensor | None = None) -> Pooled:
    """The rest of a tower.

    Args:
        method: whose seams act; None runs the frozen backbone.
        image: (b, d) for the ``tokens`` seam, where text depends on it: features of text are (b, c, d) then.
    """
    x, at, packed = rows.x, rows.at, rows.packed
    name = tower.name
    touched = method.touches(name) if method else range(0)
    alone = method is not None and method.training and method.local_detached
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad] if method and alone else []
    losses: list[Tensor] = []
    if at < 0:
        if method and 0 in touched:
            x = method.tokens(name, x if image is None else x.expand(len(image), -1, -1), image)
        x, at = tower.enter(x, packed), 0
    for i in range(at, tower.depth):
        acts, known = i in touched, rows.past if i == rows.at else None
        if known is not None and not acts:
            x = known
            continue
        if method and acts:
            x = method.before(name, i, x)
        u = tower.block(i).ln_1(x)
        y = _block(tower, i, x, u, packed) if known is None else known
        if method and acts:
            if method.training and (loss := _local(method, trained, tower, i, x, u, packed)) is not None:
                losses.append(loss)
            added = method.beside(name, i, pooled_rows(u, packed) if i == tower.depth - 1 else u)
            y = y if added is None else y + added
        x = y
    features = tower.pool(x)
    return Pooled(features[:, 0] if packed is None else features, torch.stack(losses).sum() if losses else None)


def finish_text(tower: Tower, rows: Rows, method: Method | None, image: Tensor | None = None) -> Pooled:
    """``finish`` for prompts, in their own order: features (c, d), or with images (b, d) those of every pair (b, c, d).

    Where the backward pass would need more than ``MEMORY`` bytes, images and prompts run in parts, and training
    computes each again in the backward pass instead of keeping it.
    """
    assert rows.packed is not None, "text is packed"
    most = MEMORY * rows.x.shape[1] // kept(tower, rows)  # rows
    parts = list(rows.parts(most))
    images = [None] if image is None else image.split(1 if len(parts) > 1 else max(1, most // rows.x.shape[1]))
    again = len(parts) * len(images) > 1 and torch.is_grad_enabled()

    def run(part: Rows, image: Tensor | None) -> Pooled:
        if again:
            return checkpoint(finish, tower, part, method, image, use_reentrant=False)
        return finish(tower, part, method, image)

    done = [[run(part, image) for part in parts] for image in images]
    features = torch.cat([torch.cat([each for each, _ in of_image], dim=1) for of_image in done])
    losses = [loss for of_image in done for _, loss in of_image if loss is not None]
    features = features[:, rows.packed.order]
    return Pooled(features[0] if image is None else features, torch.stack(losses).sum() if losses else None)


def similarity(image: Tensor, text: Tensor) -> Tensor:
    """Inner products (b, c) of images (b, d) and texts (c, d), or texts of each image (b, c, d); float32 at least."""
    with torch.autocast(image.device.type, enabled=False):  # logits of half precision would lie an eighth apart
        image, text = widen(image), widen(text)
        return image @ text.T if text.ndim == 2 else (text @ image.unsqueeze(-1)).squeeze(-1)


def _block(tower: Tower, i: int, x: Tensor, u: Tensor, packed: Packed | None) -> Tensor:
    """A block without seams; the last one computes only the pooled rows."""
    block = tower.block(i)
    return block.pooled(x, u, packed) if i == tower.depth - 1 else block(x, u, packed)


def _local(
    method: Method, trained: list[Parameter], tower: Tower, i: int, x: Tensor, u: Tensor, packed: Packed | None
) -> Tensor | None:
    """A block's local loss; where it is detached, its gradient is taken at once, and its activations are not kept."""
    if not method.local_detached or not torch.is_grad_enabled():
        return _mean(method.local(tower.name, i, x, u), packed)
    with saved_tensors_hooks(_same, _same):  # those of a part that is computed again wait for the backward pass
        loss = _mean(method.local(tower.name, i, x.detach(), u.detach()), packed)
        if loss is None or not loss.requires_grad:
            return loss
        with torch.autocast(loss.device.type, enabled=False):  # it acts on a backward pass too that runs under it
            grads = torch.autograd.grad(loss, trained, allow_unused=True)
    known = [(parameter, grad) for parameter, grad in zip(trained, grads, strict=True) if grad is not None]
    return cast(
        Tensor, _Known.apply(loss.detach(), [grad for _, grad in known], *(parameter for parameter, _ in known))
    )


class _Known(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: tuple[Tensor, ...], *parameters: Tensor) -> Tensor:
        ctx.grads = grads
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grads[0] * grad for grad in ctx.grads)


def _same(x: Tensor) -> Tensor:
    return x


def _mean(values: Tensor | None, packed: Packed | None) -> Tensor | None:
    """Mean of values (b, l) over all rows in float32; a row that prompts share counts for each of them."""
    if values is None:
        return None
    values = widen(values)
    return values.mean() if packed is None else (values * packed.weight).sum() / (len(values) * packed.total)
