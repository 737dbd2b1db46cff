"""Multi-Modal Adapter against a plain writing of it, an image at a time, on torch's own attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rmadapter.backbones import outline
from rmadapter.errors import SettingError
from rmadapter.methods.multimodal_adapter import MultiModalAdapter
from small import small_pair


def test_the_published_sizes() -> None:
    backbone = outline("ViT-B-16")
    assert MultiModalAdapter(backbone).trained() == 107_712
    assert MultiModalAdapter(backbone, width=256).trained() == 313_152
    assert MultiModalAdapter(backbone, adapts="image", mask="boolean").trained() == 107_712


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 24, generator=generator).double(), torch.randn(5, 24, generator=generator).double()


def method(**settings: object) -> MultiModalAdapter:
    """Three times its initial values, so that attention is far from even."""
    _, backbone = small_pair()
    backbone.clip.double()
    made = MultiModalAdapter(backbone, **settings).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def plain(method: MultiModalAdapter, v: Tensor, text: Tensor, mask: str, both: bool) -> Tensor:
    """Logits (c,) of one image, its feature v (d,)."""
    attention = nn.MultiheadAttention(128, 4, batch_first=True).double()
    own = {"in_proj_weight": method.qkv.weight, "in_proj_bias": method.qkv.bias}
    out = {f"out_proj.{name}": value for name, value in method.out.named_parameters()}
    attention.load_state_dict({**own, **out})
    rows = normalize(torch.cat([text, v[None]]), dim=-1)
    count = len(text)
    pairs = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    pairs[:count, count] = pairs[count, :count] = 1
    h = method.down(rows)[None]
    z = attention(h, h, h, attn_mask=pairs if mask == "additive" else pairs == 0)[0][0]  # torch hides where True
    moved = normalize(0.2 * normalize(method.up(z), dim=-1) + 0.8 * rows, dim=-1)
    texts = moved[:count] if both else rows[:count]
    return method.backbone.clip.logit_scale.exp() * texts @ moved[count]


@pytest.mark.parametrize("mask", ["additive", "boolean"])
@pytest.mark.parametrize("adapts", ["both", "image"])
def test_an_image_at_a_time(mask: str, adapts: str) -> None:
    made, (image, text) = method(mask=mask, adapts=adapts), inputs()
    found = made.head(image, text)
    expected = torch.stack([plain(made, v, text, mask, adapts == "both") for v in image])
    assert torch.allclose(found.logits, expected, rtol=1e-9)
    assert found.text.shape == ((4, 5, 24) if adapts == "both" else (5, 24))
    for features in (found.image, found.text):
        assert torch.allclose(features.norm(dim=-1), torch.ones((), dtype=torch.float64))


def test_logits_depend_on_the_class_list_and_not_on_its_order() -> None:
    made, (image, text) = method(), inputs()
    whole = made.head(image, text).logits
    assert torch.allclose(made.head(image, text.flip(0)).logits, whole.flip(1), rtol=1e-9)
    assert (made.head(image, text[:3]).logits - whole[:, :3]).abs().max() > 1e-3
    assert torch.allclose(made.head(image[:1], text).logits, whole[:1], rtol=1e-9)  # images do not see each other


def test_the_boolean_mask_moves_all_classes_by_the_same() -> None:
    made, (image, text) = method(mask="boolean"), inputs()
    rows = made._attend(normalize(text, dim=-1), normalize(image, dim=-1))
    assert torch.allclose(rows[:, 0], rows[:, 4], rtol=1e-9)  # each class sees the image alone
    assert not torch.allclose(rows[:, 0], rows[:, 5])


def test_heads_that_do_not_divide_the_width() -> None:
    _, backbone = small_pair()
    with pytest.raises(SettingError, match=r"must divide.*\n.*heads 3, width 128"):
        MultiModalAdapter(backbone, heads=3)
