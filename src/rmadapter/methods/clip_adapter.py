"""CLIP-Adapter: a small MLP behind the image tower (and, if wanted, the text tower), blended with the frozen feature.

Source: Gao et al., IJCV 2023 (arXiv 2110.04544).

With a pooled feature f (b, d) that is not normalised, reduction k and ratio a:

    A(f) = relu(W_2 relu(W_1 f))         (b, d)       W_1 (d / k, d), W_2 (d, d / k), no biases
    f* = a A(f) + (1 - a) f              (b, d)
    logits = exp(scale) f*/|f*| t^T      (b, c)       t (c, d): normalised text features

Easy to miss: the output has a relu too, and A(f) is not normalised before the blend; f may be, since without biases
A(n f) = n A(f) for n > 0. The text adapter of the paper has the same form on text features (c, d); the published code
has none. The loss is cross-entropy.
"""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor

from rmadapter.method import Features, Method
from rmadapter.methods.parts.blend import Adapter, Share, blend
from rmadapter.settings import Settings


class CLIPAdapterSettings(Settings):
    """The defaults are those of the published code."""

    image_ratio: Share = 0.2
    """a: share of the adapter in the image feature; the paper takes 0.6 for some fine-grained sets. 0: no adapter."""
    text_ratio: Share = 0.0
    """The same for the text feature. 0, as in the published code: text has no adapter."""
    reduction: PositiveInt = 4
    """k: how many times narrower than the feature is the hidden layer?"""


class CLIPAdapter(Method):
    """See the module's text. Settings: ``CLIPAdapterSettings``."""

    name = "clip_adapter"
    source = "Gao et al., IJCV 2023"
    Settings = CLIPAdapterSettings
    settings: CLIPAdapterSettings

    def build(self) -> None:
        s, width = self.settings, self.backbone.shape.joint
        self.image = Adapter(width, s.reduction) if s.image_ratio else None
        self.text = Adapter(width, s.reduction) if s.text_ratio else None

    def head(self, image: Tensor, text: Tensor) -> Features:
        s = self.settings
        return super().head(blend(self.image, image, s.image_ratio), blend(self.text, text, s.text_ratio))
