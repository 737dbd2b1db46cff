"""The gradient of a training step, from the images of a batch in parts where all at once would keep too much memory.

Terms are means over images of what each has with the texts, so the terms of the parts, each times its share of the
images, add up to those of the batch, and so do their gradients. Text goes through its tower once: the parts add up the
gradient of its features, and that goes back through the tower once. Nothing is computed twice, and what an image keeps
for the backward pass is free again when the next part begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rmadapter import frame
from rmadapter.backbones.clip import TowerName
from rmadapter.frame import Pooled, Rows, widen
from rmadapter.method import Method, Teacher

CPU = 3 << 27
"""Bytes that the images of a part may keep, about, on a CPU: a few images at ViT-B/16 make products that are large
enough. Elsewhere it is as many as text may keep, so that parts are few."""


def gradients(
    method: Method,
    images: Rows,
    labels: Tensor,
    text: Rows,
    teacher: Teacher | None,
    autocast: Callable[[], AbstractContextManager[None]],
    backward: Callable[[Tensor], None],
) -> dict[str, Tensor]:
    """Add the gradient of a batch's loss to that of what trains; returns the method's terms, without a gradient.

    Args:
        images, text: what ``Method.begin`` and ``begin_text`` gave.
        labels: (b,).
        autocast: a context for the forward pass.
        backward: of a loss, which it may scale.
    """
    sums: dict[str, Tensor] = {}
    cuts: list[tuple[Tensor, Tensor]] = []  # what comes out of the text tower, and what parts get in its place

    def cut(x: Tensor) -> Tensor:
        if not x.requires_grad:
            return x
        cuts.append((x, widen(x.detach()).requires_grad_()))  # so that half precision does not round the sum of parts
        return cuts[-1][1]

    known: Rows | Pooled = text
    if not method.conditional_text:
        with autocast():
            found = method.finish_text(text)
        known = Pooled(cut(found.features), None if found.local is None else cut(found.local))
    for part in parts(method, images, text):
        share = len(labels[part]) / len(labels)
        taught = teacher and teacher._replace(image=teacher.image[part])
        with autocast():
            terms = method.terms(method(images.some(part), known), labels[part], taught)
        backward(torch.stack(list(terms.values())).sum() * share)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + share * term.detach()
    read = [(x, leaf.grad.to(x.dtype)) for x, leaf in cuts if leaf.grad is not None]
    torch.autograd.backward([x for x, _ in read], [grad for _, grad in read])
    return sums


def parts(method: Method, images: Rows, text: Rows) -> Iterator[slice]:
    """A batch's images in parts of nearly one size, as large as memory allows."""
    count, most = len(images.x), len(images.x)
    if not method.whole_batch:
        cpu = images.x.device.type == "cpu"
        allowed: dict[TowerName, tuple[Rows, int]] = {"image": (images, CPU if cpu else frame.MEMORY)}
        if method.conditional_text:
            allowed["text"] = text, frame.MEMORY
        for name, (rows, budget) in allowed.items():
            if method.touches(name):
                most = min(most, max(1, budget // frame.kept(method.backbone.tower(name), rows)))
    number = -(-count // most)
    for i in range(number):
        yield slice(i * count // number, (i + 1) * count // number)
