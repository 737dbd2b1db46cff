"""The two towers in training: initial values, a forward pass that drops patches, and the losses."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmadapter.backbones.clip import CLIP, Block, Shape, Tower
from rmadapter.backbones.packing import Packed, pack

SMOOTHING = 0.05
"""Of the labels of all cross-entropies."""
MOST_SCALE = 60.0
"""Largest logit scale."""


def build(shape: Shape, seed: int) -> CLIP:
    """A CLIP with CLIP's own initial values, ready to train."""
    generator = torch.Generator().manual_seed(seed)
    clip = CLIP(shape)
    for tower in (clip.image, clip.text):
        width, depth = tower.width, tower.depth
        deep = (2 * depth) ** -0.5
        for block in tower.blocks:
            assert isinstance(block, Block)
            block.qkv.weight.normal_(std=width**-0.5, generator=generator)
            block.out.weight.normal_(std=width**-0.5 * deep, generator=generator)
            block.fc.weight.normal_(std=(2 * width) ** -0.5, generator=generator)
            block.proj.weight.normal_(std=width**-0.5 * deep, generator=generator)
            for layer in (block.qkv, block.out, block.fc, block.proj):
                layer.bias.zero_()
        tower.projection.normal_(std=width**-0.5, generator=generator)
    clip.text.embedding.weight.normal_(std=0.02, generator=generator)
    clip.text.positions.normal_(std=0.01, generator=generator)
    clip.image.class_embedding.normal_(std=shape.image.width**-0.5, generator=generator)
    clip.logit_scale.fill_(math.log(1 / 0.07))
    return clip.requires_grad_(True)


@torch.no_grad()
def start_patches(clip: CLIP, images: Tensor) -> None:
    """Patch embedding from the whitened principal components of training scenes, positions from sines and cosines.

    Args:
        images: normalised scenes (b, 3, s, s).
    """
    patch, width = clip.shape.patch_size, clip.shape.image.width
    patches = F.unfold(images, patch, stride=patch).permute(0, 2, 1).reshape(-1, 3 * patch * patch)
    patches = patches - patches.mean(0)
    axes, sizes, _ = torch.linalg.svd(patches.T @ patches / len(patches))
    whitened = (axes / (sizes + 1e-3 * sizes[0]).sqrt()).T[:width]
    clip.image.patch.weight[: len(whitened)] = 0.5 * whitened.view(-1, 3, patch, patch)
    side = clip.shape.image_size // patch
    rows, columns = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    waves = math.pi * torch.linspace(0.5, side, width // 4)
    angles = [axis.reshape(-1, 1) * waves for axis in (rows, columns)]
    clip.image.positions[1:] = 0.5 * torch.cat([turn(angle) for angle in angles for turn in (torch.sin, torch.cos)], 1)
    clip.image.positions[0] = 0


def image_features(clip: CLIP, pixels: Tensor, kept: float, generator: torch.Generator | None) -> Tensor:
    """Features (b, d), L2-normalised, of normalised pixels, from a share of the patches drawn for each image."""
    x = clip.image.rows(pixels)
    count = round(kept * (x.shape[1] - 1))
    if generator is not None and count < x.shape[1] - 1:
        draws = torch.rand(len(x), x.shape[1] - 1, generator=generator)
        places = draws.topk(count, dim=1, sorted=False).indices + 1
        x = torch.cat([x[:, :1], x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))], dim=1)
    return _run(clip.image, clip.image.enter(x))[:, 0]


def text_features(clip: CLIP, ids: Tensor) -> Tensor:
    """Features (c, d), L2-normalised, of token ids (c, l)."""
    ids, packed = pack(ids)
    return _run(clip.text, clip.text.enter(clip.text.rows(ids), packed), packed)[0, packed.order]


def _run(tower: Tower, x: Tensor, packed: Packed | None = None) -> Tensor:
    """Blocks and pooling; the last block computes only the pooled rows."""
    for i in range(tower.depth - 1):
        block = tower.block(i)
        x = block(x, block.ln_1(x), packed)
    block = tower.block(tower.depth - 1)
    return F.normalize(tower.pool(block.pooled(x, block.ln_1(x), packed)), dim=-1)


def contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss for names with several views: image to text, and text to all of its images.

    Args:
        image: (names * views, d), the views of a name follow each other.
        text: (names, d).
    """
    views = len(image) // len(text)
    logits = scale * image @ text.T
    target = torch.arange(len(text)).repeat_interleave(views)
    to_text = F.cross_entropy(logits, target, label_smoothing=SMOOTHING)
    positive = F.one_hot(target, len(text)).T.to(logits.dtype) / views
    to_image = F.cross_entropy(logits.T, positive, label_smoothing=SMOOTHING)
    return (to_text + to_image) / 2


class Proxies(nn.Module):
    """One learned direction for each emoji name, so that every step sees every name as a negative."""

    def __init__(self, names: int, joint: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(names, joint, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(0.5 * F.normalize(drawn, dim=-1))

    def forward(self, image: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
        """Cross-entropy of images and, with half the weight, texts; names without a proxy (-1) are left out."""
        named = labels >= 0
        directions = F.normalize(self.weight, dim=-1).T
        shown = labels.repeat_interleave(len(image) // len(text))
        seen = shown >= 0
        images = F.cross_entropy(scale * image[seen] @ directions, shown[seen], label_smoothing=SMOOTHING)
        return images + 0.5 * F.cross_entropy(scale * text[named] @ directions, labels[named])
