"""MaPLe: learned rows in both towers, those of images a linear map of those of text.

Source: Khattak et al., CVPR 2023. Text width w, image width v, n rows, depth J; P_1 (n, w) is the context:

    P_1 … P_J               trained                                                    (n, w) each
    V_j = A_j P_j + a_j     A_j (v, w), a_j (v,) trained                               (n, v) each
    text                    P_1 in the place of the first n words, before positions are added;
                            before block j = 2 … J, P_j in the same place
    image                   V_1 behind the patches, through the first layer norm;
                            before block j = 2 … J, V_j in the same place
    logits = exp(scale) f t^T                                                          (b, c), f and t L2-normalised

    L = cross-entropy

From block J on the rows are carried along. With n = 2, "of a" of "a photo of a" stays in the prompt as it is.
"""

from __future__ import annotations

import copy
from typing import ClassVar, cast

from pydantic import PositiveInt
from torch import Tensor, nn

from rmadapter.backbones.clip import TowerName
from rmadapter.methods.parts.prompts import DeepPromptMethod, DeepSettings


class MaPLeSettings(DeepSettings):
    """Of the prompts."""

    length: PositiveInt = 2
    """n: how many rows are learned in place of words, and appended to an image?"""


class MaPLe(DeepPromptMethod):
    """See the module's text. Settings: ``MaPLeSettings``."""

    name = "maple"
    source = "Khattak et al., CVPR 2023"
    Settings: ClassVar[type[DeepSettings]] = MaPLeSettings

    def build(self) -> None:
        super().build()
        image, text = self.backbone.shape.image.width, self.backbone.shape.text.width
        deep = [str(i + 1) for i in range(1, self.depth("text"))]  # blocks from 1, as in settings
        later = nn.Linear(text, image)  # all deep couplings start from one, as published
        self.text = nn.ParameterDict({block: self.random_rows("text") for block in deep})
        self.coupling = nn.ModuleDict({"1": nn.Linear(text, image), **{block: copy.deepcopy(later) for block in deep}})

    def depth(self, tower: TowerName) -> int:
        """The same in both towers: that of the one with fewer blocks."""
        return min(super().depth("image"), super().depth("text"))

    def rows(self, tower: TowerName, i: int) -> Tensor:
        prompt = self.context if i == 0 else self.text[str(i + 1)]
        return prompt if tower == "text" else cast(Tensor, self.coupling[str(i + 1)](prompt))
