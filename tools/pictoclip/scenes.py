"""Training scenes: batches of sprites composed in floating point, from easy to as hard as the tasks' own scenes.

The tasks' scenes (rmadapter.data.pictograms.scene) are fixed-point and one at a time, so that they are the same bytes
everywhere. Training needs thousands a second and no such promise. At hardness 1 the ranges are the tasks'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIRROR = 0.25
"""Share of the drawings that are mirrored, where that changes nothing: sets disagree about which way a thing faces."""
CONTRAST = 0.3
"""Least difference in mean level between one-colour artwork and its background."""


@dataclass(frozen=True)
class Ranges:
    """How far a scene may vary; every number is the largest or the share of scenes unless it says otherwise."""

    least_scale: float
    most_scale: float
    rotation: float
    shift: float
    jitter: float
    cover: float
    distractor: float
    blur: float
    noise: float


EASY = Ranges(0.80, 1.0, 6, 0.4, 0.10, 0.0, 0.0, 0.10, 0.03)
HARD = Ranges(0.50, 1.0, 20, 1.0, 0.30, 0.4, 0.35, 0.30, 0.08)
PIECE = Ranges(0.25, 0.40, 45, 1.4, 0, 0, 0, 0, 0)
"""A distractor's placing."""


def between(hardness: float) -> Ranges:
    """Ranges at a hardness between 0 (easy) and 1 (as the tasks)."""
    return Ranges(*(a + (b - a) * hardness for a, b in zip(vars(EASY).values(), vars(HARD).values(), strict=True)))


def _spread(x: Tensor) -> Tensor:
    """Largest less smallest value around each pixel, across and down; pooling layers are several times slower."""
    x = F.pad(x, (1, 1, 1, 1))
    around = [x[..., 1:-1, 1:-1], x[..., :-2, 1:-1], x[..., 2:, 1:-1], x[..., 1:-1, :-2], x[..., 1:-1, 2:]]
    most, least = around[0], around[0]
    for other in around[1:]:
        most, least = torch.maximum(most, other), torch.minimum(least, other)
    return most - least


class Composer:
    """Composes batches of scenes with one generator."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size, self.generator = size, generator

    def __call__(self, sprites: Tensor, mono: Tensor, mirrored: Tensor, hardness: float, inked: float) -> Tensor:
        """Scenes (b, 3, size, size) of 0 to 1.

        Args:
            sprites: (b, 64, 64, 4) uint8, straight alpha.
            mono: (b,) artwork of one colour, which is recoloured in contrast to its background.
            mirrored: (b,) artwork that may be mirrored.
            hardness: 0 to 1.
            inked: share of the artwork in colours that is turned into one colour.
        """
        ranges, count = between(hardness), len(sprites)
        art = sprites.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
        turned = ~mono & (self._rand(count) < inked)
        if turned.any():
            art[turned, 3] = self._ink(art[turned])
        mono = mono | turned
        art[:, :3] *= art[:, 3:]
        pieces = art
        art = self._place(art, ranges, mirrored)
        ground = self._background(count)
        colour = self._rand(count, 3, 1, 1)
        behind = ground.mean((1, 2, 3), keepdim=True)
        near = (colour.mean(1, keepdim=True) - behind).abs() < CONTRAST
        colour = torch.where(near, torch.where(behind > 0.5, colour * 0.3, 1 - colour * 0.3), colour)
        rgb = torch.where(mono[:, None, None, None], colour * art[:, 3:], art[:, :3])
        self._distract(ground, pieces, ranges)
        image = rgb + ground * (1 - art[:, 3:])
        return self._spoil(self._light(image, ranges.jitter), ranges)

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _signed(self, *shape: int) -> Tensor:
        return 2 * self._rand(*shape) - 1

    def _ink(self, art: Tensor) -> Tensor:
        """Alpha (b, 64, 64) of a one-colour version of artwork in colours: dark or light parts, or a cut silhouette."""
        alpha = art[:, 3]
        level = (art[:, :3] * art.new_tensor([0.3, 0.59, 0.11])[:, None, None]).sum(1)
        middle = (level * alpha).sum((1, 2), keepdim=True) / alpha.sum((1, 2), keepdim=True).clamp(min=1)
        dark = ((middle + 0.15 * self._signed(len(art), 1, 1) - level) * 12).sigmoid()
        spread = _spread(torch.stack([level * alpha, alpha], dim=1))
        edges = (4 * spread[:, 0]).clamp(max=1)
        lines = torch.maximum(edges, spread[:, 1]).clamp(max=1)
        kind = torch.randint(5, (len(art), 1, 1), generator=self.generator)
        cut = alpha * (1 - edges)
        inked = torch.where(kind == 0, alpha * dark, torch.where(kind == 1, alpha * (1 - dark), cut))
        return torch.where(kind == 4, lines, inked)

    def _place(self, art: Tensor, ranges: Ranges, mirrored: Tensor | None = None) -> Tensor:
        """Artwork scaled, turned, stretched, mirrored and moved: (b, 4, size, size), premultiplied."""
        count = len(art)
        scale = ranges.least_scale + (ranges.most_scale - ranges.least_scale) * self._rand(count)
        angle = self._signed(count) * ranges.rotation * math.pi / 180
        stretch = 1 + 0.1 * self._signed(count)
        x, y = self._signed(2, count) * ((1 - scale).clamp(min=0) + 0.05) * ranges.shift
        cosine, sine = angle.cos() / scale, angle.sin() / scale
        across = torch.stack([cosine, sine, -(cosine * x + sine * y)], 1) * stretch[:, None]
        down = torch.stack([-sine, cosine, sine * x - cosine * y], 1) / stretch[:, None]
        if mirrored is not None:
            across = torch.where((mirrored & (self._rand(count) < MIRROR))[:, None], -across, across)
        grid = F.affine_grid(torch.stack([across, down], 1), [count, 4, self.size, self.size], align_corners=False)
        return F.grid_sample(art, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _background(self, count: int) -> Tensor:
        """One colour, a gradient, coarse or finer clouds: (b, 3, size, size)."""
        size = self.size
        base, other = self._rand(2, count, 3, 1, 1)
        kind = torch.randint(4, (count,), generator=self.generator)
        ground = base.expand(-1, -1, size, size).contiguous()
        angle = self._rand(count, 1, 1, 1) * 2 * math.pi
        along = torch.linspace(-1, 1, size)
        weight = ((along * angle.cos() + along[:, None] * angle.sin()) / 2 + 0.5).clamp(0, 1)
        ground = torch.where((kind == 1)[:, None, None, None], base * (1 - weight) + other * weight, ground)
        for number, cells, share in ((2, 4, 0.5), (3, 10, 0.4)):
            chosen = kind == number
            if chosen.any():
                clouds = self._rand(int(chosen.sum()), 3, cells, cells)
                clouds = F.interpolate(clouds, size=(size, size), mode="bilinear", align_corners=False)
                ground[chosen] = base[chosen] * (1 - share) + clouds * share
        return ground

    def _distract(self, ground: Tensor, art: Tensor, ranges: Ranges) -> None:
        """Puts small copies of other artwork into some of the backgrounds, in place."""
        chosen = (self._rand(len(ground)) < ranges.distractor).nonzero()[:, 0]
        if len(chosen):
            other = (chosen + torch.randint(1, len(art), chosen.shape, generator=self.generator)) % len(art)
            piece = self._place(art[other], PIECE)
            ground[chosen] = ground[chosen] * (1 - piece[:, 3:]) + piece[:, :3]

    def _light(self, image: Tensor, jitter: float) -> Tensor:
        """Contrast, brightness, colour balance and saturation."""
        count = len(image)
        gain = (1 + jitter * self._signed(count, 1, 1, 1)) * (1 + jitter / 2 * self._signed(count, 3, 1, 1))
        image = image * gain + 0.4 * jitter * self._signed(count, 1, 1, 1)
        grey = image.mean(1, keepdim=True)
        return torch.lerp(grey, image, 1 + 1.5 * jitter * self._signed(count, 1, 1, 1))

    def _spoil(self, image: Tensor, ranges: Ranges) -> Tensor:
        """Covers, blurs and adds noise."""
        count, size = len(image), self.size
        covered = (self._rand(count) < ranges.cover).nonzero()[:, 0].tolist()
        wide, high = (((0.1 + 0.3 * self._rand(2, count)) * size).int()).tolist()
        left, top = ((0.8 * self._rand(2, count) * size).int()).tolist()
        colour = self._rand(count, 3, 1, 1)
        for i in covered:
            image[i, :, top[i] : top[i] + high[i], left[i] : left[i] + wide[i]] = colour[i]
        blurred = self._rand(count) < ranges.blur
        if blurred.any():
            image[blurred] = F.avg_pool2d(F.pad(image[blurred], (1, 1, 1, 1), mode="reflect"), 3, 1)
        noise = torch.empty_like(image).normal_(generator=self.generator)
        image += noise * (ranges.noise * self._rand(count, 1, 1, 1))
        return image.clamp_(0, 1)
