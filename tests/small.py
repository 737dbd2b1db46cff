"""Small CLIPs for tests: an open_clip model and our Backbone with the same random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from rmadapter.backbones import Backbone, build
from rmadapter.backbones.openclip import rename, shape_of
from rmadapter.backbones.preprocess import Preprocess

VOCABULARY, CONTEXT = 49408, 77


def small_pair(
    image_depth: int = 4, text_depth: int = 3, quick_gelu: bool = True, seed: int = 0
) -> tuple[CLIP, Backbone]:
    """An open_clip model with 32-pixel images, and the same weights as our Backbone; float32."""
    vision = CLIPVisionCfg(layers=image_depth, width=48, head_width=16, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=CONTEXT, vocab_size=VOCABULARY, width=32, heads=2, layers=text_depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(24, vision, text, quick_gelu=quick_gelu).eval().requires_grad_(False)
        for parameter in model.parameters():  # biases and norms start at 0 and 1: a mix-up of them must show
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = {
        "embed_dim": 24,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"layers": image_depth, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": text_depth},
    }
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), "bicubic", "shortest")
    weights = {key: value.clone() for key, value in rename(model.state_dict(), "small").items()}
    tokenizer = SimpleTokenizer(context_length=CONTEXT)
    backbone = build((shape_of(config, "small"), weights, preprocess, tokenizer), "small", None)
    return model, backbone


def small_folder(folder: Path) -> Path:
    """The same model as a local folder in open_clip's layout."""
    config = {
        "model_cfg": {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": {"layers": 4, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 32},
            "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 3},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {key: value.contiguous() for key, value in small_pair()[0].state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
