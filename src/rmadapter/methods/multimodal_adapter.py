"""Multi-Modal Adapter: attention among the features of all classes and the image, so that text depends on the image.

Source: Seputis et al., 2024 (arXiv 2409.02958). Not MMA (Yang et al., CVPR 2024), whose name is nearly the same.

For each image, with normalised frozen features of the c classes and the image as rows S (c + 1, d), the image last:

    H = W_2 (W_1 S)                                    (c + 1, p)   d -> r -> p, no nonlinearity between the two
    Z = W_o softmax(q k^T / sqrt(p / heads) + M) v     (c + 1, p)   q, k, v = W_in H, split into heads
    Y = W_4 gelu(W_3 Z)                                (c + 1, d)   p -> r -> d
    F = normalised(a Y/|Y| + (1 - a) S)                (c + 1, d)   a: ratio
    logits_c = exp(scale) <F_image, F_c>               (b, c)       text features differ from image to image: (b, c, d)

All six maps have biases; there is no residual, norm or dropout inside. M is 1 where a row of one modality looks at the
other and 0 elsewhere: *added*, as in the published code, it favours such pairs by a factor e and hides nothing. The
paper's words (masked attention) read as a mask that hides pairs of the same modality: ``mask = "boolean"``.

Classes attend to each other, so the logits of a class depend on which others are there: never slice them from a larger
class list. The loss is cross-entropy.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from rmadapter.errors import SettingError
from rmadapter.method import Features, Method, similarity, widen
from rmadapter.settings import Settings


class MultiModalAdapterSettings(Settings):
    """The defaults are those of the published code."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """a: share of the adapter in each feature."""
    adapts: Literal["both", "image"] = "both"
    """Which features are blended? image: the published image-only form, where text stays CLIP's own."""
    mask: Literal["additive", "boolean"] = "additive"
    """Is attention across modalities favoured (+1, as in the code), or the only one (boolean, the paper's words)?"""
    rank: PositiveInt = 32
    """r: width of the bottleneck before and after the attention."""
    width: PositiveInt = 128
    """p: width of the attention."""
    heads: PositiveInt = 4
    """Of the attention; they divide its width."""


class MultiModalAdapter(Method):
    """See the module's text. Settings: ``MultiModalAdapterSettings``."""

    name = "multimodal_adapter"
    source = "Seputis et al., 2024"
    Settings = MultiModalAdapterSettings
    settings: MultiModalAdapterSettings

    def build(self) -> None:
        s, joint = self.settings, self.backbone.shape.joint
        if s.width % s.heads:
            raise SettingError("the heads must divide the attention's width", got=f"heads {s.heads}, width {s.width}")
        self.down = nn.Sequential(nn.Linear(joint, s.rank), nn.Linear(s.rank, s.width))
        self.qkv, self.out = nn.Linear(s.width, 3 * s.width), nn.Linear(s.width, s.width)
        self.up = nn.Sequential(nn.Linear(s.width, s.rank), nn.GELU(), nn.Linear(s.rank, joint))
        nn.init.xavier_uniform_(self.qkv.weight)  # as torch's own attention starts; the rest starts as linear layers do
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def head(self, image: Tensor, text: Tensor) -> Features:
        s = self.settings
        image, text = F.normalize(widen(image), dim=-1), F.normalize(widen(text), dim=-1)
        rows = torch.cat([text.expand(len(image), -1, -1), image.unsqueeze(1)], dim=1)  # (b, c + 1, d)
        adapted = F.normalize(widen(self.up(self._attend(text, image))), dim=-1)
        blended = F.normalize(s.ratio * adapted + (1 - s.ratio) * rows, dim=-1)
        image = blended[:, -1]
        if s.adapts == "both":
            text = blended[:, :-1]  # (b, c, d)
        return Features(image, text, similarity(self.backbone.clip.logit_scale.exp() * image, text))

    def _attend(self, text: Tensor, image: Tensor) -> Tensor:
        """Normalised features (c, d) and (b, d) to Z (b, c + 1, p)."""
        # What comes before the attention is a map of each row, so classes go through it once and not once an image.
        of_text, of_image = self.qkv(self.down(text)), self.qkv(self.down(image))
        rows = torch.cat([of_text.expand(len(image), -1, -1), of_image.unsqueeze(1)], dim=1)  # (b, c + 1, 3 p)
        q, k, v = (part.unflatten(-1, (self.settings.heads, -1)).transpose(1, 2) for part in rows.chunk(3, dim=-1))
        is_image = torch.arange(rows.shape[1], device=rows.device) == len(text)
        cross = is_image[:, None] != is_image  # (c + 1, c + 1): one row is the image, and the other is not
        mask = cross if self.settings.mask == "boolean" else cross.to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (b, heads, c + 1, p / heads)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out
