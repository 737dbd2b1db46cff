"""MMA: sizes, ranges, the gradient scale at the published scale, and where unequal towers meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rmadapter.backbones import outline
from rmadapter.errors import SettingError
from rmadapter.methods.mma import MMA
from small import small_pair


def test_the_published_size() -> None:
    method = MMA(outline("ViT-B-16"))
    parts = [sum(p.numel() for p in part.parameters()) for part in (method.image, method.text, method.middle)]
    assert parts == [399_616, 266_496, 8_448]
    assert method.trained() == method.at_inference() == 674_560
    assert method.touches("image") == method.touches("text") == range(4, 12)  # 5 to 12, counted from 1
    assert MMA(outline("ViT-L-14")).touches("image") == range(16, 24)


@pytest.mark.parametrize("blocks", [{"image_blocks": "3-7"}, {"text_blocks": (4, 4)}])
def test_blocks_that_a_tower_lacks(blocks: dict) -> None:
    _, backbone = small_pair(image_depth=6, text_depth=3)
    with pytest.raises(SettingError, match=rf"{next(iter(blocks))} goes beyond the tower"):
        MMA(backbone, **blocks)


def gradients(method: MMA, x: Tensor) -> dict[str, Tensor]:
    """Of the sum of what is added beside block 3, with regard to x and to every parameter that was used."""
    x = x.clone().requires_grad_()
    method.zero_grad()
    method.beside("image", 2, x).sum().backward()
    assert x.grad is not None
    return {"x": x.grad, **{name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("scale", [0.001, 0.5])
def test_weights_train_as_if_the_scale_were_one_and_the_input_gets_the_true_gradient(scale: float) -> None:
    _, backbone = small_pair()
    x = torch.randn(2, 5, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with_it, without = (gradients(MMA(backbone, scale=scale, gradient_scale=on).double(), x) for on in (True, False))
    assert with_it.keys() == without.keys() and len(with_it) == 7  # x; weight and bias of down, middle and up
    for name, value in with_it.items():
        factor = 1 if name == "x" else 1 / scale
        assert torch.allclose(value, factor * without[name], rtol=1e-9), name


def test_towers_of_unequal_depth_meet_at_the_top() -> None:
    _, backbone = small_pair(image_depth=6, text_depth=3)
    method = MMA(backbone)
    assert (method.touches("image"), method.touches("text"), len(method.middle)) == (range(2, 6), range(1, 3), 4)
    method.beside(
        "text", 1, torch.randn(1, 2, 32)
    ).sum().backward()  # the text's lower of two: the image's third of four
    assert [layer.weight.grad is not None for layer in method.middle] == [False, False, True, False]


def test_zero_start_is_the_identity() -> None:
    _, backbone = small_pair()
    u = torch.randn(1, 2, 48)
    assert not MMA(backbone, zero_start=True).beside("image", 3, u).any()
    assert MMA(backbone).beside("image", 3, u).any()
