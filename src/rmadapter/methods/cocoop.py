"""CoCoOp: CoOp whose context is shifted by what the image shows.

Source: Zhou et al., CVPR 2022. With n rows of context v (n, w) and a net of hidden width d / 16:

    shift of image b        π_b = W_2 relu(W_1 f_b + b_1) + b_2                        (b, w), f_b (d,) L2-normalised
    prompt of b and c       start, v_1 + π_b … v_n + π_b, name_c, the rest, end
    t_bc = text(prompt_bc)                                                             (b, c, d)
    logits_bc = exp(scale) f_b · t_bc                                                  (b, c), f and t L2-normalised

    L = cross-entropy

The text tower runs for every pair of an image and a class. The net starts as torch's layers do, so the untrained method
is not zero-shot CLIP.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rmadapter.backbones.clip import TowerName
from rmadapter.method import widen
from rmadapter.methods.parts.prompts import ContextMethod, ContextSettings, overwrite

NARROWER = 16
"""Joint dimension over hidden width of the net."""


class CoCoOp(ContextMethod):
    """See the module's text. Settings: ``ContextSettings``."""

    name = "cocoop"
    source = "Zhou et al., CVPR 2022"
    Settings = ContextSettings
    conditional_text = True

    def build(self) -> None:
        super().build()
        joint = self.backbone.shape.joint
        hidden = max(1, joint // NARROWER)
        self.net = nn.Sequential(nn.Linear(joint, hidden), nn.ReLU(), nn.Linear(hidden, self.backbone.shape.text.width))

    def tokens(self, tower: TowerName, x: Tensor, image: Tensor | None = None) -> Tensor:
        assert image is not None, "conditional_text: the frame gives the image"
        shift = self.net(F.normalize(widen(image), dim=-1))  # (b, w)
        return overwrite(x, self.context + shift[:, None], 1)
