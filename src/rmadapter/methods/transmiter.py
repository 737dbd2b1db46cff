"""TransMiter: a small net on an image's logits, learned beside one backbone and carried over to another.

Source: Park et al., AAAI 2026. l (b, D): logits of the frozen backbone for N classes and D - N auxiliary names; μ and σ
(b, 1): their mean and standard deviation (unbiased).

    s  = (l - μ) / (σ + 1e-6)
    x  = W s                                           W = B exp(A - A^T) (D, D) orthogonal; A strictly lower, from 0
    x' = x + U2 gelu(U1 LN(x) + b1) + b2               U1 (eD, D), U2 (D, eD) from 0
    l' = σ W^T x' + μ                                  (b, D); the first N are the logits

On labelled images (``rmadapter train``) their cross-entropy trains A, LN, U and b. What is published is ``rmadapter
transfer`` (transfer.py), where a teacher's logits t (b, N) on the same backbone train them instead of labels,

    L = τ KL(softmax(t / τ) || softmax(l'[:N]))        τ = 0.5

and, with tables S and T (n, D) of s of the same images on this backbone and on another, the other one's net is

    B' = W R^T,  A' = 0,  LN, U and b as they are      R = argmin over orthogonal R of |T R - S|^2 + λ |R - I|^2
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from rmadapter.data import words
from rmadapter.errors import SettingError
from rmadapter.method import Features, Method
from rmadapter.methods.parts.logit_net import LogitNet
from rmadapter.settings import Settings


class TransMiterSettings(Settings):
    """Of the net; and, where a text begins so, of extraction and alignment, which ``rmadapter transfer`` does."""

    dimension: Annotated[int, Field(ge=2)] | None = None
    """D: how many logits, with those of auxiliary names? 1024 as published; none: one a class, no auxiliary names."""
    expansion: PositiveInt = 4
    """e: how much wider is the hidden layer than D?"""
    input_files: ClassVar[tuple[str, ...]] = ("auxiliary",)
    auxiliary: str | tuple[str, ...] = "cldr"
    """The names beside the classes: cldr (inside the package), or a file, one a line; an adapter has those drawn."""
    novel: Literal["known", "blind"] = "known"
    """Extraction: may it use the names of novel classes? known, as published; blind: they come in afterwards."""
    teacher_temperature: PositiveFloat = 0.5
    """Extraction: τ, what the teacher's logits are divided by, and the loss multiplied by."""
    noise: NonNegativeFloat = 0.5
    """Extraction: deviation of the noise that half of the batches get, over that of an image's logits."""
    extraction_epochs: PositiveInt = 10
    """Extraction: passes over the images."""
    extraction_batch: PositiveInt = 128
    """Extraction: images a step; the last, smaller batch is kept."""
    extraction_rate: PositiveFloat = 1e-3
    """Extraction: learning rate of AdamW, behind a linear rise over the first 5 % of the steps; then a cosine to 0."""
    extraction_decay: NonNegativeFloat = 1e-3
    """Extraction: weight decay on every trained tensor."""
    ridge: PositiveFloat = 500.0
    """Alignment: λ as it is, whatever the number of images and D; as published."""
    ridge_share: PositiveFloat | None = None
    """Alignment: λ as a share of n (D - 1), which is the trace of S^T S; none: ridge counts."""

    def content(self, key: str) -> str:
        """The names count, wherever they stand: inside the package, in a file, or here."""
        names = words.names(self.auxiliary)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


class TransMiter(Method):
    """See the module's text. Settings: ``TransMiterSettings``."""

    name = "transmiter"
    source = "Park et al., AAAI 2026"
    Settings = TransMiterSettings
    settings: TransMiterSettings
    class_bound = True

    def build(self) -> None:
        count = len(self.classes)
        size = self.settings.dimension or max(2, count)
        if size < count:
            raise SettingError(
                f"{count} classes do not fit into {size} logits", remedy=f"give a --method.dimension of {count} or more"
            )
        self.pool = getattr(self, "pool", self.settings.auxiliary)  # a second start draws from all of it again
        drawn = words.draw(self.pool, self.classes, size - count, self.seed)
        self.settings = self.settings.model_copy(update={"auxiliary": drawn})
        self.net = LogitNet(size, self.settings.expansion)

    def named(self, classes: Sequence[str]) -> Sequence[str]:
        return [*classes, *self.settings.auxiliary]

    def head(self, image: Tensor, text: Tensor) -> Features:
        frozen, count = super().head(image, text), len(self.classes)
        return frozen._replace(text=frozen.text[:count], logits=self.net(frozen.logits)[:, :count])
