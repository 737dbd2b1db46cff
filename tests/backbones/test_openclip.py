"""Our CLIP against open_clip's own, and the strictness of renaming."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rmadapter import ZeroShot, load_backbone
from rmadapter.backbones import Backbone, outline
from rmadapter.backbones.openclip import rename, shape_of
from rmadapter.errors import BackboneError
from small import small_folder, small_pair

TEXTS = ["a photo of a cat.", "a photo of a red panda, a type of pet.", "a"]


def features(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised image and text features through the frame, with all its cuts."""
    method = ZeroShot(backbone).eval()
    with torch.no_grad():
        output = method(method.begin("image", images), method.begin("text", backbone.tokenize(TEXTS)))
    return output.features.image, output.features.text


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_same_features_as_open_clip(name: str) -> None:
    backbone = load_backbone(name, pretrained=None, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.create_model(name).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    image, text = features(backbone, images)
    with torch.no_grad():
        assert (image - model.encode_image(images, normalize=True)).abs().max() < 1e-5
        tokens = open_clip.get_tokenizer(name)(TEXTS)
        assert (text - model.encode_text(tokens, normalize=True)).abs().max() < 1e-5


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_small_clip_with_nonzero_biases(quick_gelu: bool) -> None:
    model, backbone = small_pair(quick_gelu=quick_gelu)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image, text = features(backbone, images)
    with torch.no_grad():
        assert (image - model.encode_image(images, normalize=True)).abs().max() < 1e-5
        assert (text - model.encode_text(backbone.tokenize(TEXTS), normalize=True)).abs().max() < 1e-5


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, same, other = (load_backbone("ViT-B-32", None, seed=seed).sha256 for seed in (1, 1, 2))
    assert first == same != other
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tag_decides_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenAI's weights need QuickGELU though the model's config says GELU; open_clip itself only warns.
    from rmadapter.backbones.openclip import _config

    assert _config("ViT-B-16", "openai")[1] is True
    assert _config("ViT-B-16", "laion2b_s34b_b88k")[1] is False
    assert _config("ViT-B-16", None)[1] is False
    assert _config("ViT-B-16-quickgelu", "openai")[1] is True
    monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda name, tag: {"quick_gelu": False})
    with pytest.raises(BackboneError, match="trained with GELU"):
        _config("ViT-B-16-quickgelu", "openai")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-61", None, "did you mean 'ViT-B-16'"),
        ("pictoclip-x", None, "did you mean 'pictoclip-s'"),
        ("ViT-B-16", "openia", "did you mean 'openai'"),
        ("RN50", None, "not a square vision transformer"),
        ("coca_ViT-B-32", None, "is not part of a plain CLIP"),
        ("ViT-B-16-SigLIP", None, "is not part of a plain CLIP"),
        ("EVA02-B-16", None, "is not part of a plain CLIP"),
        ("convnext_base", None, "is not part of a plain CLIP"),
        ("roberta-ViT-B-32", None, "is not part of a plain CLIP"),
        ("ViT-B-16", "weights.pt", "safetensors"),
        ("ViT-B-16-quickgelu", "nowhere.safetensors", "nowhere.safetensors"),
        ("pictoclip-s", "openai", "weights of its own"),
    ],
)
def test_what_is_not_a_clip_is_refused(name: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, pretrained)


@pytest.mark.filterwarnings("ignore:.*computed with GELU")
def test_every_key_is_used_and_every_parameter_filled(tmp_path: Path) -> None:
    model = open_clip.create_model("ViT-B-32")
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    with pytest.warns(UserWarning, match="computed with GELU.*ViT-B-32-quickgelu"):
        loaded = load_backbone("ViT-B-32", str(file))
    assert loaded.clip.logit_scale == model.logit_scale

    save_file({**state, "visual.head.weight": torch.zeros(2)}, file)
    with pytest.raises(BackboneError, match=r"visual\.head\.weight"):
        load_backbone("ViT-B-32", str(file))

    save_file({key: value for key, value in state.items() if key != "visual.ln_post.bias"}, file)
    with pytest.raises(BackboneError, match=r"image\.ln_post\.bias.*has nothing"):
        load_backbone("ViT-B-32", str(file))

    with pytest.raises(BackboneError, match="tensors differ"):
        load_backbone("ViT-B-16", str(file))

    file.write_bytes(b"no weights")
    with pytest.raises(BackboneError, match=r"weights\.safetensors"):
        load_backbone("ViT-B-32", str(file))


def test_local_folder(tmp_path: Path) -> None:
    _, backbone = small_pair()
    config = json.loads((small_folder(tmp_path) / "open_clip_config.json").read_text())
    loaded = load_backbone(str(tmp_path))
    assert loaded.sha256 == backbone.sha256
    assert loaded.preprocess.std == (0.25, 0.25, 0.25)
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(BackboneError, match=r"open_clip_config\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(BackboneError, match="must hold one"):
        load_backbone(f"local-dir:{tmp_path}")


def test_a_folder_that_is_only_called_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-B-32", "mine"):
        (tmp_path / name).mkdir()
    assert outline("ViT-B-32").name == "ViT-B-32"
    with pytest.raises(BackboneError, match=r"open_clip_config\.json"):
        load_backbone("mine")
    small_folder(tmp_path / "ViT-B-32")
    assert load_backbone("ViT-B-32").name.startswith("local-dir:")


def test_hub_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's part is played by local files: what comes from it is config and weights."""
    model, backbone = small_pair()
    vision = {"layers": 4, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    file = tmp_path / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    monkeypatch.setattr("open_clip.factory._get_hf_config", lambda *_, **__: {"model_cfg": dict(config)})
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", lambda *_, **__: str(file))
    assert load_backbone("hf-hub:someone/model").sha256 == backbone.sha256

    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", offline)
    with pytest.raises(BackboneError, match="could not load 'hf-hub:someone/model'"):
        load_backbone("hf-hub:someone/model")  # never random weights instead


def test_both_attention_layouts_of_open_clip_are_read() -> None:
    model, backbone = small_pair()
    state = model.state_dict()
    newer = {
        key.replace("attn.in_proj_weight", "attn.in_proj.weight").replace(
            "attn.in_proj_bias", "attn.in_proj.bias"
        ): value
        for key, value in state.items()
    }
    inside = {
        key if key.startswith(("visual.", "logit_scale")) else f"text.{key}": value for key, value in state.items()
    }
    expected = {key: tuple(value.shape) for key, value in backbone.clip.state_dict().items()}
    for variant in (newer, inside):
        assert {key: tuple(value.shape) for key, value in rename(variant, "variant").items()} == expected


def test_layer_scale_is_refused() -> None:
    config = open_clip.get_model_config("ViT-B-16")
    config["vision_cfg"]["ls_init_value"] = 1e-5
    with pytest.raises(BackboneError, match="ls_init_value"):
        shape_of(config, "test")


def test_nothing_requires_a_gradient(pictoclip: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in pictoclip.clip.parameters())


def test_a_text_that_is_too_long_is_an_error(pictoclip: Backbone) -> None:
    with pytest.raises(BackboneError, match="too long"):
        pictoclip.tokenize(["a pictogram of a " + "red panda " * 20])
