"""CoPrompt: MaPLe's prompts and an adapter behind each tower, held to the frozen model by other words and another view.

Source: Roy and Etemad, ICLR 2024. i, t: features of MaPLe's towers, not normalised; A (d / 4, d) and B (d, d / 4)
of each tower:

    i' = (1 - α) i + α relu(B relu(A i)), and so t' with β of its own                  (b, d), (c, d)
    logits = exp(scale) i' t'^T                                                        (b, c), i' and t' L2-normalised
    e_kc    frozen feature of the k-th sentence about class c                          (k, c, d), once a run
    f_b     frozen feature of a second augmented view of image b                       (b, d)

    L = cross-entropy + λ (1 - mean_c cos(t'_c, e_kc)) + λ (1 - mean_b cos(i'_b, f_b))

One k a step, the same for all classes, is drawn from the seed and the step's number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from rmadapter.backbones.clip import TowerName
from rmadapter.method import Features, Output, Rows, Teacher, prompts
from rmadapter.methods.maple import MaPLe
from rmadapter.methods.parts.blend import Adapter, Share, blend
from rmadapter.methods.parts.prompts import DeepSettings
from rmadapter.methods.parts.templates import TEMPLATES, encode, generic, sentences

NARROWER = 4
"""Joint dimension over hidden width of an adapter."""


class CoPromptSettings(DeepSettings):
    """Of the prompts, the adapters and the consistency terms. Published ones differ from data set to data set."""

    length: PositiveInt = 4
    """n: how many rows are learned in place of words, and appended to an image? 2 or 4 as published."""
    depth: PositiveInt | None = None
    """J: how many blocks get learned rows, from the first on? None: all of the shallower tower, 12 at
    ViT-B/16; published: 12, or 9 on some data sets."""
    weight: NonNegativeFloat = 8.0
    """λ: how strongly are both features held to the frozen ones? 0.1 to 8 as published."""
    image_ratio: Share = 0.1
    """α: how much of an image's feature does the adapter make?"""
    text_ratio: Share = 0.2
    """β: how much of a text's?"""
    input_files: ClassVar[tuple[str, ...]] = ("sentences",)
    sentences: str | None = None
    """What is said of the classes: a JSON file, {"class name": ["sentence", …]}, as many for each. None: templates."""
    templates: Annotated[int, Field(ge=0, le=len(TEMPLATES))] = len(TEMPLATES)
    """Without a file: how many of CLIP's generic templates make the sentences? 0: the task's own alone."""


class CoPrompt(MaPLe):
    """See the module's text. Settings: ``CoPromptSettings``."""

    name = "coprompt"
    source = "Roy and Etemad, ICLR 2024"
    Settings = CoPromptSettings
    settings: CoPromptSettings
    needs_teacher = True
    views = 2

    def build(self) -> None:
        super().build()
        self.image_adapter, self.text_adapter = (Adapter(self.backbone.shape.joint, NARROWER) for _ in range(2))

    def depth(self, tower: TowerName) -> int:
        return self.settings.depth or min(self.backbone.shape.image.depth, self.backbone.shape.text.depth)

    def head(self, image: Tensor, text: Tensor) -> Features:
        image = blend(self.image_adapter, image, self.settings.image_ratio)
        return super().head(image, blend(self.text_adapter, text, self.settings.text_ratio))

    def teacher_text(self, classes: Sequence[str], text: Rows) -> Tensor:
        """(k, c, d): the k-th sentence about each class."""
        s = self.settings
        if s.sentences is None:
            about = [prompts(classes, template) for template in generic(s.templates, self.template)]
        else:
            about = sentences(Path(s.sentences), classes)
        return F.normalize(torch.stack([encode(self.backbone, texts) for texts in about]), dim=-1)

    def drawn(self, step: int, count: int) -> int:
        """Which of ``count`` sentences teaches at a step."""
        return random.Random(f"sentence-{self.seed}-{step}").randrange(count)

    def terms(self, output: Output, labels: Tensor, teacher: Teacher | None) -> dict[str, Tensor]:
        terms = super().terms(output, labels, teacher)
        if teacher is not None:
            text = teacher.text[self.drawn(teacher.step, len(teacher.text))]
            pairs = {"text": (output.features.text, text), "image": (output.features.image, teacher.image)}
            for tower, (own, frozen) in pairs.items():
                distance = 1 - F.cosine_similarity(own, frozen, dim=-1).mean()
                terms[f"consistency_{tower}"] = self.settings.weight * distance
        return terms
