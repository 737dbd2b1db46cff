"""Scenes: one sprite, placed, lit, half hidden and blurred, as a pure function of the sprite and a key.

    scene = noise(blur(cover(light(over(place(sprite), over(place(distractor), background))))))

All arithmetic is on integers, so a key gives the same bytes on every machine. Pixels travel as four 16-bit lanes of
one 64-bit word (red lowest, alpha highest, each 0 to 255): a product with a weight of 0 to 256 stays in its lane, so
that one multiplication serves four channels. Lighting needs signed numbers and works on (3, size, size) planes in
sixteenths of a level.

Fractions of 1 are 16-bit ("Q16": 65536 is 1) for geometry and draws, and 8-bit (256 is 1) for weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Planes = NDArray[np.int32]

ONE = 1 << 16
"""1 in Q16."""


@dataclass(frozen=True)
class Difficulty:
    """How far a scene is from the plain artwork; fractions are Q16."""

    scale: tuple[int, int] = (ONE // 2, ONE * 95 // 100)
    """Least and largest side of the sprite, as a share of the scene's."""
    rotation: int = ONE * 20 // 360
    """Largest turn either way, as a share of a full turn."""
    shift: int = ONE
    """How much of the free room (and a twentieth of the scene) the sprite may be moved by."""
    distractor: int = ONE * 35 // 100
    """Share of the scenes with a distractor."""
    jitter: int = ONE * 3 // 10
    """Largest change of contrast; brightness, balance and saturation change by 0.4, 0.5 and 1.5 times as much."""
    cover: int = ONE * 2 // 5
    """Share of the scenes in which a rectangle hides a part."""
    blur: int = ONE * 3 // 10
    """Share of the scenes that are blurred by a 3 x 3 mean."""
    noise: int = ONE * 8 // 100
    """Largest standard deviation of the noise, where white is 1."""


USUAL = Difficulty()
HARD = Difficulty(
    scale=(ONE * 2 // 5, ONE * 4 // 5),
    rotation=ONE * 35 // 360,
    distractor=ONE * 7 // 10,
    jitter=ONE * 2 // 5,
    cover=ONE * 7 // 10,
    blur=ONE // 2,
    noise=ONE * 12 // 100,
)

STRETCH = ONE // 10
"""Largest change of the aspect ratio."""

DISTRACTOR_SCALE = (ONE // 4, ONE * 2 // 5)
DISTRACTOR_ROTATION = ONE * 45 // 360
DISTRACTOR_SHIFT = ONE * 7 // 5

CONTRAST = 255 * 3 // 10
"""Least difference in mean level between one-colour artwork and its background."""

_LANE = np.uint64(0x00FF00FF00FF00FF)
_HALF = np.uint64(0x0080008000800080)
_EIGHT = np.uint64(8)
_SHIFTS = np.array([0, 16, 32], dtype=np.uint64)[:, None, None]
_ALPHA = np.uint64(48)
_MARGIN = 2
_SCALARS, _GRID = 64, 100


def scene(
    sprite: NDArray[np.uint8],
    mono: bool,
    key: str | tuple[str | int, ...],
    size: int = 64,
    distractor: NDArray[np.uint8] | None = None,
    difficulty: Difficulty = USUAL,
) -> NDArray[np.uint8]:
    """A scene with the sprite in it.

    Args:
        sprite: square RGBA artwork, straight alpha.
        mono: whether the artwork has one colour; it is then recoloured in contrast to its background.
        key: names the scene; its hash is the only source of randomness.
        size: side of the scene in pixels; a key gives the same composition at every size.
        distractor: square RGBA artwork, a small copy of which stands behind the sprite in some scenes.
        difficulty: how far the scene is from the plain artwork.

    Returns:
        (size, size, 3) RGB.
    """
    stream = np.random.Philox(key=int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "little"))
    words = stream.random_raw(_SCALARS + _GRID)
    draw = iter((words[:_SCALARS] >> _ALPHA).tolist())  # a number of 0 to 65535 each
    ground = _background(words[_SCALARS:], size, draw)
    ink = [next(draw) >> 8 for _ in range(3)]
    art = _place(sprite, size, draw, difficulty.scale, difficulty.rotation, difficulty.shift)
    if mono:
        art = _recolour(art, ground, ink)
    placing = [next(draw) for _ in range(6)]  # drawn in any case, so that a distractor changes nothing else
    if distractor is not None and placing[0] < difficulty.distractor:
        small = _place(distractor, size, iter(placing[1:]), DISTRACTOR_SCALE, DISTRACTOR_ROTATION, DISTRACTOR_SHIFT)
        ground = _over(small, ground)
    image = _light(_over(art, ground), draw, difficulty.jitter)
    _cover(image, size, draw, difficulty.cover)
    if next(draw) < difficulty.blur:
        image = _blur(image)
    _add_noise(image, next(draw) * difficulty.noise >> 16, stream)
    image += 8
    image >>= 4
    pixels: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(pixels)


def _signed(draw: int, largest: int) -> int:
    """A draw as a Q16 number between -largest and largest."""
    return (2 * draw - ONE) * largest >> 16


def _pack(levels: list[int]) -> int:
    return sum(level << 16 * lane for lane, level in enumerate(levels))


def _mix(first: Words | np.uint64, second: Words | np.uint64, weight: Words | np.uint64) -> Words:
    """The first where the weight is 0, the second where it is 256, lane by lane."""
    mixed: Words = ((first * (np.uint64(256) - weight) + second * weight + _HALF) >> _EIGHT) & _LANE
    return mixed


def _weights(alpha: Words) -> Words:
    """Alpha of 0 to 255 as a weight of 0 to 256."""
    return alpha + (alpha >> np.uint64(7))


def _over(art: Words, ground: Words) -> Words:
    """Premultiplied artwork laid over a background. Colour is at most alpha, so no sum exceeds 255."""
    rest = np.uint64(256) - _weights(art >> _ALPHA)
    return art + ((ground * rest >> _EIGHT) & _LANE)


def _background(words: Words, size: int, draw: Iterator[int]) -> Words:
    """One of four kinds: one colour, a straight gradient, coarse clouds, finer clouds. Returns (size, size)."""
    kind, angle = next(draw) >> 14, next(draw)
    base, other = (np.uint64(_pack([next(draw) >> 8 for _ in range(3)])) for _ in range(2))
    if kind == 0:
        return np.full((size, size), base)
    if kind == 1:
        return _mix(base, other, _ramp(size, angle))
    cells, share = (4, 128) if kind == 2 else (10, 102)
    # Three bytes of each word, one a lane.
    levels = words[: cells * cells].reshape(cells, cells) & np.uint64(0x000000FF00FF00FF)
    return _mix(base, _stretch(levels, size), np.uint64(share))


def _ramp(size: int, angle: int) -> Words:
    """Weights from 0 to 256 across the scene in the direction of an angle (Q16 of a turn), cut off at the corners."""
    along = np.arange(1 - size, size, 2, dtype=np.int64)
    level = (along * _cosine(angle))[None, :] + (along * _sine(angle))[:, None]
    weights: Words = np.clip(128 + level // (512 * size), 0, 256).astype(np.uint64)
    return weights


@lru_cache(maxsize=8)
def _spread(cells: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Words]:
    """For each of ``size`` pixels: the two cells to mix (edges repeated) and the weight of the second."""
    centre = np.clip((2 * np.arange(size) + 1) * cells * 128 // size - 128, 0, (cells - 1) * 256)
    low = (centre >> 8).astype(np.intp)
    return low, np.minimum(low + 1, cells - 1), (centre & 255).astype(np.uint64)


def _stretch(levels: Words, size: int) -> Words:
    """Bilinear enlargement of (cells, cells) to (size, size)."""
    low, high, weight = _spread(len(levels), size)
    rows = _mix(levels[low], levels[high], weight[:, None])
    return _mix(rows[:, low], rows[:, high], weight)


def _premultiply(sprite: NDArray[np.uint8]) -> Words:
    """RGBA as words with colour times alpha, in a transparent margin that lets sampling run over the edge."""
    side = len(sprite)
    padded = np.zeros((side + 2 * _MARGIN, side + 2 * _MARGIN), dtype=np.uint64)
    lanes = sprite.astype(np.uint64)
    alpha = lanes[..., 3]
    colour = lanes[..., 0] | lanes[..., 1] << np.uint64(16) | lanes[..., 2] << np.uint64(32)
    colour = ((colour * _weights(alpha) + _HALF) >> _EIGHT) & _LANE
    padded[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = colour | alpha << _ALPHA
    return padded


def _place(
    sprite: NDArray[np.uint8], size: int, draw: Iterator[int], scales: tuple[int, int], rotation: int, shift: int
) -> Words:
    """The sprite scaled, turned, stretched and moved into an empty scene: (size, size), premultiplied."""
    scale = scales[0] + ((scales[1] - scales[0]) * next(draw) >> 16)
    angle, aspect = _signed(next(draw), rotation), ONE + _signed(next(draw), STRETCH)
    room = (ONE - scale + ONE // 20) * shift >> 16
    x0, y0 = _signed(next(draw), room), _signed(next(draw), room)
    cosine, sine = (_cosine(angle) << 16) // scale, (_sine(angle) << 16) // scale
    # Where each pixel of the scene comes from in the sprite: scene centre and half side are 0 and 1 in Q16.
    side = len(sprite)
    matrix = ((cosine * aspect >> 16, sine * aspect >> 16), (-(sine << 16) // aspect, (cosine << 16) // aspect))
    along = np.arange(1 - size, size, 2, dtype=np.int64)
    found = []
    for across, down in matrix:
        start = -((across * x0 + down * y0) >> 16) * side // 2 + ((side - 1) << 15)
        found.append((along * (across * side) // (2 * size))[None, :] + (along * (down * side) // (2 * size))[:, None])
        found[-1] += start
    return _sample(_premultiply(sprite), found[0], found[1])


def _sample(padded: Words, x: NDArray[np.int64], y: NDArray[np.int64]) -> Words:
    """Bilinear reading of a padded sprite at Q16 pixel positions; outside of the sprite it is transparent."""
    width = len(padded)
    last = width - 2 * _MARGIN
    left, top = np.clip(x >> 16, -_MARGIN, last), np.clip(y >> 16, -_MARGIN, last)
    across, down = ((x >> 8) & 255).astype(np.uint64), ((y >> 8) & 255).astype(np.uint64)
    corner = (top + _MARGIN) * width + (left + _MARGIN)
    flat = padded.ravel()
    upper = _mix(flat.take(corner), flat.take(corner + 1), across)
    corner += width
    return _mix(upper, _mix(flat.take(corner), flat.take(corner + 1), across), down)


def _unpack(words: Words) -> Planes:
    """The three colour lanes as (3, size, size)."""
    return ((words >> _SHIFTS) & np.uint64(0xFF)).astype(np.int32)


def _recolour(art: Words, ground: Words, ink: list[int]) -> Words:
    """The artwork in one colour, made darker or lighter where it would not stand out against the background."""
    behind = int(_unpack(ground).sum()) // (3 * ground.size)
    if abs(sum(ink) // 3 - behind) < CONTRAST:
        ink = [level * 3 // 10 if behind > 127 else 255 - level * 3 // 10 for level in ink]
    alpha = art >> _ALPHA
    return ((np.uint64(_pack(ink)) * _weights(alpha) >> _EIGHT) & _LANE) | alpha << _ALPHA


def _light(words: Words, draw: Iterator[int], jitter: int) -> Planes:
    """Contrast, brightness, colour balance and saturation. Returns planes in sixteenths of a level, not clipped."""
    contrast, brightness = ONE + _signed(next(draw), jitter), _signed(next(draw), jitter * 2 // 5)
    balance = [ONE + _signed(next(draw), jitter // 2) for _ in range(3)]
    saturation = ONE + _signed(next(draw), jitter * 3 // 2)
    gain = np.array([contrast * channel >> 16 for channel in balance], dtype=np.int32)
    offset = np.array([(brightness * channel >> 16) * 255 >> 12 for channel in balance], dtype=np.int32)
    image = _unpack(words)
    image *= gain[:, None, None]
    image >>= 12
    image += offset[:, None, None]
    grey = (image[0] + image[1] + image[2]) * 21845 >> 16
    image -= grey
    image *= saturation
    image >>= 16
    image += grey
    return image


def _cover(image: Planes, size: int, draw: Iterator[int], share: int) -> None:
    """Hides a rectangle of a tenth to two fifths of each side behind one colour, in some scenes."""
    covered = next(draw) < share
    wide, high = ((ONE // 10 + (next(draw) * 3 // 10)) * size >> 16 for _ in range(2))
    left, top = (next(draw) * size * 4 // 5 >> 16 for _ in range(2))
    colour = [next(draw) * 255 >> 12 for _ in range(3)]
    if covered:
        image[:, top : top + high, left : left + wide] = np.array(colour, dtype=np.int32)[:, None, None]


def _blur(image: Planes) -> Planes:
    """The mean of 3 x 3 pixels; edges are mirrored."""
    rows = image.copy()
    rows[:, 1:] += image[:, :-1]
    rows[:, :-1] += image[:, 1:]
    rows[:, 0] += image[:, 1]
    rows[:, -1] += image[:, -2]
    both = rows.copy()
    both[:, :, 1:] += rows[:, :, :-1]
    both[:, :, :-1] += rows[:, :, 1:]
    both[:, :, 0] += rows[:, :, 1]
    both[:, :, -1] += rows[:, :, -2]
    both *= 7282  # 65536 / 9
    both >>= 16
    return both


def _add_noise(image: Planes, strength: int, stream: np.random.Philox) -> None:
    """Adds noise of a deviation (Q16 of white) to every value: the sum of four random bytes, whose own is 147.8."""
    count = image.size
    words = stream.random_raw((count + 1) // 2)
    pairs = (words & _LANE) + ((words >> _EIGHT) & _LANE)  # two bytes a lane
    sums = (pairs & np.uint64(0x0000FFFF0000FFFF)) + ((pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF))
    bell = np.empty((len(words), 2), dtype=np.int32)
    bell[:, 0] = sums & np.uint64(0xFFFF)
    bell[:, 1] = sums >> np.uint64(32)
    bell -= 510
    # In sixteenths of a level: 255 * 16 / 147.8 a unit of strength, and 12 bits of fraction.
    bell *= strength * 4080 // 2365
    bell >>= 12
    image += bell.ravel()[:count].reshape(image.shape)


def _sine(angle: int) -> int:
    """Q16 sine of an angle in 65536ths of a turn, by a polynomial that is off by 0.0002 at most."""
    quarter, t = angle >> 14 & 3, (angle & 0x3FFF) << 2
    if quarter & 1:
        t = ONE - t
    square = t * t >> 16
    value = t * (102933 - (square * (42155 - (square * 4765 >> 16)) >> 16)) >> 16
    return -value if quarter & 2 else value


def _cosine(angle: int) -> int:
    return _sine(angle + (ONE >> 2))
