"""KgCoOp: CoOp whose text features are held near those of a hand-written prompt.

Source: Yao et al., CVPR 2023. The context v (n, w) is all that trains; prompts and logits are CoOp's.

    t_c     text feature of the learned prompt of class c                              (c, d)
    t0_c    frozen text feature of the teacher's template with the name of class c     (c, d), once a run

    L = cross-entropy + λ (1 - mean_c cos(t_c, t0_c))                                  over all classes trained on
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from rmadapter.method import Output, Rows, Teacher
from rmadapter.methods.parts.prompts import ContextMethod, ContextSettings
from rmadapter.methods.parts.templates import average


class KgCoOpSettings(ContextSettings):
    """The context's settings, and the teacher's."""

    weight: NonNegativeFloat = 8.0
    """λ: how strongly are the learned prompts held to the teacher's?"""
    teacher_template: str | None = None
    """The teacher's prompt, with {} for the class name. None: a public data set's published one, else the template."""


class KgCoOp(ContextMethod):
    """See the module's text. Settings: ``KgCoOpSettings``."""

    name = "kgcoop"
    source = "Yao et al., CVPR 2023"
    Settings = KgCoOpSettings
    settings: KgCoOpSettings
    needs_teacher = True

    def teacher_text(self, classes: Sequence[str], text: Rows) -> Tensor:
        template = self.settings.teacher_template or self.teacher_template or self.template
        return average(self.backbone, classes, [template])

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        terms = super().terms(output, labels, teacher)
        if teacher is not None:
            distance = 1 - F.cosine_similarity(output.features.text, teacher.text, dim=-1).mean()
            terms["knowledge"] = self.settings.weight * distance
        return terms
