"""RMAdapter's sizes, block ranges and gradient paths."""

from __future__ import annotations

import pytest
import torch

from rmadapter import RMAdapter, load_backbone
from rmadapter.backbones import Backbone
from rmadapter.errors import SettingError
from small import small_pair

OFF = {"reconstruction_image": 0, "reconstruction_text": 0, "consistency_image": 0, "consistency_text": 0}


@pytest.fixture(scope="module")
def vit_b_16() -> Backbone:
    return load_backbone("ViT-B-16", pretrained=None)


def count(method: RMAdapter, part: str = "", biases: bool = True) -> int:
    """Parameters whose name has ``part`` in it."""
    return sum(p.numel() for name, p in method.named_parameters() if part in name and (biases or p.ndim > 1))


def test_the_default_sizes(vit_b_16: Backbone) -> None:
    method = RMAdapter(vit_b_16)
    assert count(method, "decoder") == 354_816
    assert count(method, "decoder", biases=False) == 344_064
    assert method.trained() == 1_020_928
    assert method.at_inference() == 666_112


@pytest.mark.parametrize(
    ("settings", "with_biases", "weights_only"),
    [
        ({"decoder_layers": 1}, 337_920, 327_680),
        ({"decoder_layers": 3}, 371_712, 360_448),
        ({"image_blocks": (6, 12), "text_blocks": (6, 12)}, 310_464, 301_056),
        ({"image_blocks": (4, 12), "text_blocks": (4, 12)}, 399_168, 387_072),
        ({"rank": 16, "hidden": 32}, 346_624, 335_872),
        ({"rank": 32, "hidden": 16}, 182_528, 172_032),
        ({"hidden": 28}, 311_744, 301_056),
        ({"hidden": 29}, 322_512, 311_808),
        ({"hidden": 30}, 333_280, 322_560),
        ({"image_blocks": (9, 12), "text_blocks": (9, 12), "rank": 64}, 366_080, 360_448),
        ({"image_blocks": (9, 12), "text_blocks": (9, 12), "hidden": 64}, 349_696, 344_064),
    ],
)
def test_the_variants_of_the_reconstruction_branch(
    vit_b_16: Backbone, settings: dict, with_biases: int, weights_only: int
) -> None:
    method = RMAdapter(vit_b_16, **settings)
    assert count(method, "decoder") == with_biases
    assert count(method, "decoder", biases=False) == weights_only


def test_the_private_down_projection(vit_b_16: Backbone) -> None:
    method = RMAdapter(vit_b_16, shared_down=False)
    assert count(method, "private_down") == 328_192
    assert count(method, "decoder") + count(method, "private_down") == 683_008
    assert method.at_inference() == 666_112


@pytest.mark.parametrize(
    ("blocks", "with_biases", "weights_only"), [((5, 12), 211_200, 204_800), ((1, 12), 316_800, 307_200)]
)
def test_the_image_tower_alone(
    vit_b_16: Backbone, blocks: tuple[int, int], with_biases: int, weights_only: int
) -> None:
    method = RMAdapter(vit_b_16, image_blocks=blocks)
    branch = {name: p for name, p in method.image.named_parameters() if "decoder" in name}
    assert sum(p.numel() for p in branch.values()) == with_biases
    assert sum(p.numel() for p in branch.values() if p.ndim > 1) == weights_only


def test_without_reconstruction_the_branch_is_not_built(vit_b_16: Backbone) -> None:
    assert RMAdapter(vit_b_16, **OFF).trained() == 666_112
    assert RMAdapter(vit_b_16, **OFF, cross_modal_shared=True).trained() == 674_560  # MMA's count


def test_towers_of_unequal_depth_are_adapted_at_the_top() -> None:
    _, backbone = small_pair(image_depth=6, text_depth=3)
    method = RMAdapter(backbone)
    assert method.touches("image") == range(2, 6)
    assert method.touches("text") == range(1, 3)
    shared = RMAdapter(backbone, cross_modal_shared=True, **OFF)
    assert len(shared.middle) == 4  # the towers meet at the top: text blocks use the last two


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 12, 24])
def test_default_range(depth: int) -> None:
    from rmadapter.methods.parts.bottleneck import upper_blocks

    expected = {1: (1, 1), 2: (2, 2), 3: (2, 3), 6: (3, 6), 12: (5, 12), 24: (17, 24)}
    assert upper_blocks(depth) == expected[depth]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_blocks": (3, 7)}, "beyond the tower"),
        ({"text_blocks": (4, 2)}, "must not be above the last"),
        ({"image_blocks": "5"}, "image_blocks is not valid"),
        ({"rank": -1}, "rank is not valid"),
        ({"rnak": 3}, "did you mean 'rank'"),
        ({"objective": "l3"}, "objective is not valid"),
        ({"scale": 0}, "scale is not valid"),
        ({"reconstruction_image": float("nan")}, "reconstruction_image is not valid"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    _, backbone = small_pair()
    with pytest.raises(SettingError, match=message):
        RMAdapter(backbone, **settings)


def gradients(only: str, **settings: object) -> dict[str, float]:
    """Largest absolute gradient of every parameter from one term alone."""
    _, backbone = small_pair()
    method = RMAdapter(backbone, scale=0.5, rank=4, **settings).train()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    output = method(method.begin("image", images), method.begin_text(["cat", "dog", "owl"]))
    method.terms(output, torch.tensor([0, 2]), None)[only].backward()
    return {
        name: 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        for name, parameter in method.named_parameters()
    }


def moved(found: dict[str, float]) -> set[str]:
    """Modules with a gradient: 'image.3.down' -> 'down'."""
    return {name.split(".")[2] for name, value in found.items() if value > 0}


def test_gradient_paths() -> None:
    """A private down-projection and a detached input: reconstruction moves nothing that predictions use."""
    shared = gradients("reconstruction_image", consistency_image=0, consistency_text=0)
    assert moved(shared) == {"down", "decoder"}
    assert not any(value for name, value in shared.items() if name.startswith("text"))
    private = gradients("reconstruction_image", shared_down=False, consistency_image=0, consistency_text=0)
    assert moved(private) == {"private_down", "decoder"}
    # Not detached, it reaches the adapters of lower blocks through the features, private or not.
    private = gradients(
        "reconstruction_image", shared_down=False, detach=False, consistency_image=0, consistency_text=0
    )
    assert moved(private) == {"private_down", "decoder", "down", "up"}
    task = gradients("ce", consistency_image=0, consistency_text=0)
    assert moved(task) == {"down", "up"}
    assert moved(gradients("ce", fused=True, consistency_image=0, consistency_text=0)) == {"down", "up", "decoder"}


def test_detached_means_no_gradient_across_blocks() -> None:
    _, backbone = small_pair()
    method = RMAdapter(backbone, scale=0.5, rank=4).train()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = method.begin("image", images).x.requires_grad_()
    block = method.backbone.tower("image").block(3)
    loss = method.local("image", 3, x, block.ln_1(x))
    assert loss is not None
    loss.sum().backward()
    assert x.grad is None


def test_the_reconstruction_branch_does_not_run_at_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    _, backbone = small_pair()
    method = RMAdapter(backbone).eval()

    def explode(*_: object) -> None:
        raise AssertionError("the reconstruction branch ran")

    monkeypatch.setattr("rmadapter.methods.rmadapter.DualBranch.hidden", explode)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        method(method.begin("image", images), method.begin_text(["cat", "dog"]))
    with pytest.raises(AssertionError, match="ran"):
        method.train()(method.begin("image", images), method.begin_text(["cat", "dog"]))


@pytest.mark.parametrize(("fused", "layers"), [(False, 2), (True, 1), (True, 2)])
def test_a_zero_start_predicts_as_the_frozen_model(pictoclip: Backbone, fused: bool, layers: int) -> None:
    found = {}
    for zero in (True, False):
        method = RMAdapter(pictoclip, seed=3, zero_start=zero, fused=fused, decoder_layers=layers, scale=1.0).eval()
        with torch.no_grad():
            rows = method.begin_text(("otter", "tapir"))
            adapted = torch.nn.functional.normalize(method.finish_text(rows)[0], dim=-1)
            found[zero] = (adapted - method.frozen("text", rows)).abs().max().item()
    assert found[True] < 1e-6 and found[False] > 0.01
