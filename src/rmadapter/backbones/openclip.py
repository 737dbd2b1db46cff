"""Weights, shapes, tokenizers and preprocessing from open_clip, renamed strictly into our CLIP.

Every key of the source must be used and every parameter filled; whatever is not shaped like CLIP is an error.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rmadapter.backbones.clip import Shape, TowerShape
from rmadapter.backbones.preprocess import Preprocess
from rmadapter.errors import BackboneError, nearest

# Source name -> our name, the same for OpenAI's files and open_clip's; {i} is a block's number.
_TOP = {
    "logit_scale": "logit_scale",
    "visual.conv1.weight": "image.patch.weight",
    "visual.class_embedding": "image.class_embedding",
    "visual.positional_embedding": "image.positions",
    "visual.ln_pre.weight": "image.ln_pre.weight",
    "visual.ln_pre.bias": "image.ln_pre.bias",
    "visual.ln_post.weight": "image.ln_post.weight",
    "visual.ln_post.bias": "image.ln_post.bias",
    "visual.proj": "image.projection",
    "token_embedding.weight": "text.embedding.weight",
    "positional_embedding": "text.positions",
    "ln_final.weight": "text.ln_post.weight",
    "ln_final.bias": "text.ln_post.bias",
    "text_projection": "text.projection",
}
_BLOCK = {
    "ln_1.weight": "ln_1.weight",
    "ln_1.bias": "ln_1.bias",
    "attn.in_proj_weight": "qkv.weight",
    "attn.in_proj_bias": "qkv.bias",
    "attn.out_proj.weight": "out.weight",
    "attn.out_proj.bias": "out.bias",
    "ln_2.weight": "ln_2.weight",
    "ln_2.bias": "ln_2.bias",
    "mlp.c_fc.weight": "fc.weight",
    "mlp.c_fc.bias": "fc.bias",
    "mlp.c_proj.weight": "proj.weight",
    "mlp.c_proj.bias": "proj.bias",
}
# Newer attention classes of open_clip name the fused projection like a Linear.
_BLOCK |= {"attn.in_proj.weight": "qkv.weight", "attn.in_proj.bias": "qkv.bias"}
OWN_WEIGHTS = ("hf-hub:", "local-dir:")
"""Names of models that carry their own weights."""
CONFIG = "open_clip_config.json"
"""In the folder of a model."""

_RESBLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)$")
_TEXT_PARTS = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
# Kept by OpenAI's scripted archives beside the weights; they hold sizes, not weights.
_NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}


def rename(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """A CLIP state dict in OpenAI's or open_clip's names, under our names, in float32.

    Raises:
        BackboneError: for a key that has no place in a CLIP of this shape.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _NOT_WEIGHTS:
            continue
        plain = key.removeprefix("text.") if key.removeprefix("text.").startswith(_TEXT_PARTS) else key
        match = _RESBLOCK.match(plain)
        if match and match[3] in _BLOCK:
            new = f"{'image' if match[1] else 'text'}.blocks.{match[2]}.{_BLOCK[match[3]]}"
        elif plain in _TOP:
            new = _TOP[plain]
        else:
            raise BackboneError(
                f"{source}: tensor {key!r} has no place in a CLIP",
                allowed="vision-transformer CLIPs with class-token pooling and a causal text tower",
                remedy="take another model; SigLIP, EVA, CoCa and ResNet towers are not supported",
            )
        renamed[new] = value.reshape(()) if new == "logit_scale" else value
    return {name: value.detach().to(torch.float32) for name, value in renamed.items()}


def shape_of(config: dict[str, Any], source: str) -> Shape:
    """Our Shape from open_clip's model config; anything that would change the computation is an error."""
    image, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    _refuse_extras(image, {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}, source)
    _refuse_extras(text, {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}, source)
    size, width = image["image_size"], image.get("width", 768)
    if not isinstance(size, int) or not isinstance(image.get("layers", 12), int):
        raise BackboneError(f"{source}: the image tower is not a square vision transformer", got=json.dumps(image))
    return Shape(
        image=TowerShape(
            width=width,
            depth=image.get("layers", 12),
            heads=width // image.get("head_width", 64),
            mlp=int(width * image.get("mlp_ratio", 4.0)),
        ),
        text=TowerShape(
            width=text["width"],
            depth=text["layers"],
            heads=text["heads"],
            mlp=int(text["width"] * text.get("mlp_ratio", 4.0)),
        ),
        joint=config["embed_dim"],
        image_size=size,
        patch_size=image["patch_size"],
        context=text.get("context_length", 77),
        vocabulary=text.get("vocab_size", 49408),
        activation="quick_gelu" if config.get("quick_gelu", False) else "gelu",
    )


# Settings of open_clip that leave a plain CLIP as it is when they have these values.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "patch_dropout": (0, 0.0),  # overwritten on load: it acts in training only
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
    "block_type": (None, "default"),
    "embed_cls": (False,),
    "output_tokens": (False, True),
    "pad_id": (0,),
    "eos_id": (2,),
    "attn_pooler_heads": (8,),
    "attn_pooler_queries": (256,),
}


def _refuse_extras(config: dict[str, Any], known: set[str], source: str) -> None:
    for key, value in config.items():
        if key in known or value in (None, False) or value in _HARMLESS.get(key, ()):
            continue
        raise BackboneError(
            f"{source}: {key} = {value!r} is not part of a plain CLIP",
            allowed="ViT towers with a class token, learned positions, and a causal text tower read at its last token",
        )


def create(name: str, pretrained: str | None, seed: int) -> tuple[Shape, dict[str, Tensor], Preprocess, Any]:
    """Shape, weights, preprocessing and tokenizer of an open_clip model.

    Args:
        name: an open_clip model, ``hf-hub:owner/model`` or ``local-dir:folder``.
        pretrained: an open_clip tag, a ``.safetensors`` file, or None for random weights drawn from ``seed``.
    """
    import open_clip

    own = name.startswith(OWN_WEIGHTS)
    file = _local_file(name, pretrained)
    with torch.random.fork_rng(devices=[]), _quiet(), _explained(name, pretrained):
        config, activation = _config(name, pretrained)
        shape = shape_of({**config, "quick_gelu": activation}, name)
        torch.manual_seed(seed)
        model = open_clip.create_model(
            name,
            pretrained=None if own or file else pretrained,
            load_weights=file is None,
            precision="fp32",
            force_quick_gelu=activation,
            force_patch_dropout=0.0,
            require_pretrained=file is None and (own or pretrained is not None),
        )
        preprocess = Preprocess.from_open_clip(open_clip.get_model_preprocess_cfg(model), name)
        tokenizer = open_clip.get_tokenizer(name)
    # A file is read by us, since open_clip would stretch position embeddings of another size without a word.
    state = model.state_dict() if file is None else read_safetensors(file)
    return shape, rename(state, str(file or name)), preprocess, tokenizer


def is_known(name: str) -> bool:
    """Is it the name of one of open_clip's models?"""
    import open_clip

    return name in open_clip.list_models()


def outline(name: str) -> tuple[Shape, Any]:
    """Shape and tokenizer of a model that open_clip knows by name."""
    import open_clip

    with _explained(name, None):
        config, activation = _config(name, None)
        return shape_of({**config, "quick_gelu": activation}, name), open_clip.get_tokenizer(name)


def _local_file(name: str, pretrained: str | None) -> Path | None:
    """The safetensors file to read, where the weights are on this disk."""
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise BackboneError(
                f"{folder} must hold one .safetensors file",
                got=", ".join(file.name for file in files) or "none",
                remedy="put the model's weights there as open_clip_model.safetensors, beside open_clip_config.json",
            )
        return files[0]
    return Path(pretrained) if pretrained is not None and pretrained.endswith(".safetensors") else None


@contextmanager
def _explained(name: str, pretrained: str | None) -> Iterator[None]:
    """What open_clip and the hub raise, as an error that says what to do."""
    try:
        yield
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"open_clip could not load {name!r}" + (f" with pretrained={pretrained!r}" if pretrained else ""),
            got=str(error).splitlines()[0] if str(error) else repr(error),
            remedy="check the name, the tag and the network; a local .safetensors file works offline",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns of random weights even where they were asked for."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file. Raises BackboneError naming the file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"cannot read the weights in {file}", got=str(error)) from error


def _config(name: str, pretrained: str | None) -> tuple[dict[str, Any], bool]:
    """The model's open_clip config, and whether its activation is QuickGELU for these weights.

    open_clip only warns where a tag needs another activation than the model's config has (ViT-B-16 with 'openai'
    is one): features would be silently wrong, so the tag decides here.
    """
    import open_clip

    if name.startswith("hf-hub:"):
        from open_clip.factory import _get_hf_config

        config = cast("dict[str, Any]", _get_hf_config(name.removeprefix("hf-hub:"))["model_cfg"])
        return config, bool(config.get("quick_gelu", False))
    if name.startswith("local-dir:"):
        file = Path(name.removeprefix("local-dir:")) / CONFIG
        config = json.loads(file.read_text())["model_cfg"]
        return config, bool(config.get("quick_gelu", False))
    config = open_clip.get_model_config(name)
    if config is None:
        raise BackboneError(
            f"unknown backbone {name!r}",
            allowed="pictoclip-s, pictoclip-m, a model of open_clip (ViT-B-16), hf-hub:owner/model, or a local folder",
            remedy=nearest(name, ["pictoclip-s", "pictoclip-m", *open_clip.list_models()]),
        )
    config = cast("dict[str, Any]", config)
    configured = bool(config.get("quick_gelu", False))
    if pretrained is None:
        return config, configured
    if pretrained.endswith(".safetensors"):  # weights do not say what they were trained with
        if not configured and open_clip.get_model_config(f"{name}-quickgelu") is not None:
            note = f"{pretrained} is computed with GELU, as {name} says; weights from OpenAI, DFN and MetaCLIP need"
            warnings.warn(f"{note} the model {name}-quickgelu", stacklevel=2)
        return config, configured
    return config, _tag_activation(name, pretrained, configured)


def _tag_activation(name: str, pretrained: str, configured: bool) -> bool:
    """Whether a tag was trained with QuickGELU. Raises BackboneError for an unknown tag, or a model that differs."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tag = get_pretrained_cfg(name, pretrained)
    if not tag:
        tags = list_pretrained_tags_by_model(name)
        raise BackboneError(
            f"{name} has no pretrained weights {pretrained!r}",
            allowed=", ".join(tags) + ", a .safetensors file, or none for random weights",
            remedy=nearest(pretrained, tags),
        )
    wanted = bool(tag.get("quick_gelu", False))
    if configured and not wanted:
        raise BackboneError(
            f"the weights {pretrained!r} were trained with GELU, and {name} computes QuickGELU",
            remedy=f"use {name.replace('-quickgelu', '')!r}",
        )
    return wanted
