"""CLIP-Adapter: sizes, the text adapter of the paper, and what the ratio does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from rmadapter.backbones import outline
from rmadapter.errors import SettingError
from rmadapter.methods.clip_adapter import CLIPAdapter
from small import small_pair


def test_the_published_sizes() -> None:
    backbone = outline("ViT-B-16")
    assert CLIPAdapter(backbone).trained() == 131_072
    assert CLIPAdapter(backbone, text_ratio=0.2).trained() == 262_144
    assert CLIPAdapter(backbone, image_ratio=0, text_ratio=0.2).trained() == 131_072
    assert CLIPAdapter(backbone, reduction=10_000).trained() == 2 * backbone.shape.joint  # one channel is left


def test_the_formula_on_both_towers() -> None:
    _, backbone = small_pair()
    method = CLIPAdapter(backbone, image_ratio=0.3, text_ratio=0.6)
    image, text = 10 * torch.randn(4, 24), 10 * torch.randn(3, 24)
    weights = dict(method.named_parameters())

    def blended(x: torch.Tensor, tower: str, ratio: float) -> torch.Tensor:
        hidden = (x @ weights[f"{tower}.down.weight"].T).clamp(min=0)
        return normalize(ratio * (hidden @ weights[f"{tower}.up.weight"].T).clamp(min=0) + (1 - ratio) * x, dim=-1)

    f, t = blended(image, "image", 0.3), blended(text, "text", 0.6)
    found = method.head(image, text)
    for ours, expected in zip(found, (f, t, backbone.clip.logit_scale.exp() * f @ t.T), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-6)
    doubled = method.head(2 * image, text)  # without biases the norm of a feature has no effect
    assert torch.allclose(doubled.logits, found.logits, rtol=1e-5)


def test_no_share_is_zero_shot() -> None:
    _, backbone = small_pair()
    method, image, text = CLIPAdapter(backbone, image_ratio=0), torch.randn(4, 24), torch.randn(3, 24)
    assert method.trained() == 0
    assert torch.equal(method.head(image, text).image, normalize(image, dim=-1))


@pytest.mark.parametrize("settings", [{"image_ratio": 1.1}, {"text_ratio": -0.1}, {"reduction": 0}])
def test_bad_settings_are_named(settings: dict) -> None:
    _, backbone = small_pair()
    with pytest.raises(SettingError, match=f"{next(iter(settings))} is not valid"):
        CLIPAdapter(backbone, **settings)
