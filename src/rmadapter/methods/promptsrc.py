"""PromptSRC: free learned rows in both towers, regularised by the frozen model and averaged over epochs.

Source: Khattak et al., ICCV 2023. Text width w, image width v, n rows, depth J; prompts enter as in MaPLe:

    T_1 … T_J (n, w), V_1 … V_J (n, v)    trained, independent of one another; T_1 is the context
    g_c    mean over templates of the frozen text features of class c, as they are, L2-normalised then    (c, d)
    f0_b   frozen feature of the same augmented image, L2-normalised                                      (b, d)
    z0 = exp(scale) f0 g^T                                                                                (b, c)

    L = cross-entropy + λ1 mean|t - g| + λ2 mean|f - f0| + λ3 mean_bc KL(softmax z0 || softmax z)

Means are over all entries, so the last is a sum over classes divided by b c. What trains at the end of epoch a of N has
weight exp(-(a - μ)² / 2 σ²), normalised over 1 … N, in the average that takes its place after epoch N.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from rmadapter.backbones.clip import TowerName
from rmadapter.method import Output, Rows, Teacher, similarity
from rmadapter.methods.parts.prompts import DeepPromptMethod, DeepSettings
from rmadapter.methods.parts.templates import TEMPLATES, average, generic


class PromptSRCSettings(DeepSettings):
    """Of the prompts, the three regularisers and the average."""

    text_weight: NonNegativeFloat = 25.0
    """λ1, on the mean absolute difference of text features: how near do they stay to the teacher's?"""
    image_weight: NonNegativeFloat = 10.0
    """λ2, on that of image features."""
    logits_weight: NonNegativeFloat = 1.0
    """λ3, on the divergence of the predictions."""
    templates: Annotated[int, Field(ge=0, le=len(TEMPLATES))] = len(TEMPLATES)
    """How many of CLIP's generic templates teach? 0: the task's own instead of them."""
    average_mean: PositiveFloat | None = None
    """μ: which epoch (from 1) weighs most in the average? None: 3/4 of the epochs, 15 of 20."""
    average_std: PositiveFloat | None = None
    """σ, in epochs: how many weigh? None: 1/20 of the epochs, 1 of 20."""


class PromptSRC(DeepPromptMethod):
    """See the module's text. Settings: ``PromptSRCSettings``."""

    name = "promptsrc"
    source = "Khattak et al., ICCV 2023"
    Settings = PromptSRCSettings
    settings: PromptSRCSettings
    needs_teacher = True
    running: Tensor

    def build(self) -> None:
        super().build()
        # By block, from 1; the context is the text's first.
        self.text = nn.ParameterDict({str(i + 1): self.random_rows("text") for i in self.touches("text")[1:]})
        self.image = nn.ParameterDict({str(i + 1): self.random_rows("image") for i in self.touches("image")})
        self.register_buffer("running", torch.zeros(self.trained()), persistent=False)

    def rows(self, tower: TowerName, i: int) -> Tensor:
        if tower == "text":
            return self.context if i == 0 else cast(Tensor, self.text[str(i + 1)])
        return cast(Tensor, self.image[str(i + 1)])

    def teacher_text(self, classes: Sequence[str], text: Rows) -> Tensor:
        return average(self.backbone, classes, generic(self.settings.templates, self.template))

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        s, terms = self.settings, super().terms(output, labels, teacher)
        if teacher is not None:
            image, text, logits = output.features
            frozen = similarity(self.backbone.clip.logit_scale.exp() * teacher.image, teacher.text)
            divergence = F.kl_div(logits.log_softmax(-1), frozen.log_softmax(-1), reduction="none", log_target=True)
            terms["consistency_text"] = s.text_weight * (text - teacher.text).abs().mean()
            terms["consistency_image"] = s.image_weight * (image - teacher.image).abs().mean()
            terms["consistency_logits"] = s.logits_weight * divergence.mean()
        return terms

    def weights(self, epochs: int) -> Tensor:
        """Of the epochs in the average: (epochs,), their sum is 1."""
        mean, std = self.settings.average_mean or 3 * epochs / 4, self.settings.average_std or epochs / 20
        epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
        return (-(((epoch - mean) / std) ** 2) / 2).softmax(dim=0)

    @torch.no_grad()
    def after_epoch(self, epoch: int, epochs: int) -> None:
        if epoch == 1:
            self.running.zero_()
        self.running += float(self.weights(epochs)[epoch - 1]) * parameters_to_vector(self.parameters())
        if epoch == epochs:
            sizes = [parameter.numel() for parameter in self.parameters()]
            for parameter, mean in zip(self.parameters(), self.running.split(sizes), strict=True):
                parameter.copy_(mean.view_as(parameter))
