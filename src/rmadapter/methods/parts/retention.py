"""Retention: what an adapted feature may not lose of the frozen one, beside or instead of an L1 consistency.

With f, t the normalised image (b, d) and text (c, d) features, f0, t0 those of the frozen backbone, and Q a projection:

    R = mean_b |Q (f - f0)|^2 / 2 + mean_c |Q (t - t0)|^2 / 2

    direction        Q = I                R = mean(1 - cos(f, f0)) + mean(1 - cos(t, t0)), as features have length 1
    outside_shots    Q = I - pinv(F) F    F (b, d): f0 of the batch; what few-shot images do not span shall not change
    inside_text      Q = pinv(T) T        T (c, d): t0 of the trained classes; what frozen texts read shall not change

All shots together span the whole space as soon as they are more than d, and nothing would lie outside. A batch spans b
dimensions at most, so over many batches a direction is held the more, the less the shots show it.

Not in RMAdapter's paper, as far as its summaries say: two ideas, keeping a direction and keeping to a subspace, are
tried beside it here; the formulas are ours. The cosine is CoPrompt's (Roy and Etemad, ICLR 2024), to the frozen feature
of the same image and prompt.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rmadapter.method import Features, Teacher

Retained = Literal["direction", "outside_shots", "inside_text"]
"""A setting: which part of a change is penalised."""


def changed(features: Features, teacher: Teacher, retained: Retained) -> Tensor:
    """R of the module's text; a scalar, 0 where nothing of what is retained has changed."""
    spans = {"outside_shots": teacher.image, "inside_text": teacher.text}
    parts = []
    for now, before in ((features.image, teacher.image), (features.text, teacher.text)):
        change = now - before
        if retained != "direction":
            within = project(change, spans[retained])
            change = within if retained == "inside_text" else change - within
        parts.append(change.square().sum(dim=-1).mean() / 2)
    return torch.stack(parts).sum()


def project(x: Tensor, rows: Tensor) -> Tensor:
    """The part of x (n, d) that lies in the span of rows (k, d), which need not be independent; at least float32."""
    with torch.autocast(x.device.type, enabled=False):  # a pseudo-inverse in half precision is none
        x, rows = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (x, rows))
        projected: Tensor = x @ torch.linalg.pinv(rows) @ rows
    return projected
