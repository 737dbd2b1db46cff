"""Scenes: the same bytes for a key everywhere, and the ingredients that they are made of."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rmadapter.data.pictograms import scene as module
from rmadapter.data.pictograms.scene import scene


def disc() -> NDArray[np.uint8]:
    """A red disc with a blue stripe and a soft edge; no file needed."""
    y, x = np.mgrid[:64, :64]
    square = (2 * x - 63) ** 2 + (2 * y - 63) ** 2
    art = np.zeros((64, 64, 4), dtype=np.uint8)
    art[..., 0], art[..., 3] = 220, np.clip((3600 - square) // 2, 0, 255)
    art[28:36, :, 2] = 200
    return art


GOLDEN = {
    "plain": "7b4156257df00844581b6c3c05b61299ebdfd8a3b11ef3f5ef7c3206574911a5",
    "mono": "5579cff8eca49f67cc1ca69607a4f01328abe2e53816fe5097bb5b9637c5571c",
    "distractor": "5ea9a506fd7cd0248e948ecccc012405e178332c2949e5816df8f9a06e8b56de",
}


def digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def golden(name: str) -> NDArray[np.uint8]:
    if name == "distractor":
        return scene(disc(), False, "behind", 48, disc()[::-1])
    return scene(disc(), name == "mono", ("1f43c", "style", name, 3))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_bytes_are_golden(name: str) -> None:
    assert digest(golden(name)) == GOLDEN[name]


def test_distractor_stands_in_the_golden_scene() -> None:
    assert digest(golden("distractor")) != digest(scene(disc(), False, "behind", 48))


def test_key_decides() -> None:
    art = disc()
    before = art.copy()
    assert np.array_equal(scene(art, False, ("a", 1)), scene(art, False, ("a", 1)))
    assert not np.array_equal(scene(art, False, ("a", 1)), scene(art, False, ("a", 2)))
    assert not np.array_equal(scene(art, False, ("a", 1)), scene(art, False, ("a", "1")))
    assert np.array_equal(art, before)


def test_global_random_state_is_neither_read_nor_written() -> None:
    np.random.seed(0)
    first, state = scene(disc(), False, "key"), repr(np.random.get_state())
    np.random.seed(1)
    assert np.array_equal(first, scene(disc(), False, "key"))
    np.random.seed(0)
    assert state == repr(np.random.get_state())


@pytest.mark.parametrize("size", [2, 33, 48, 64, 128])
def test_shape(size: int) -> None:
    pixels = scene(disc(), True, "key", size, disc())
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8


def test_same_composition_at_every_size() -> None:
    calm = replace(module.USUAL, noise=0)
    for key in range(20):
        small, large = (scene(disc(), False, str(key), size, None, calm).astype(float) for size in (32, 64))
        shrunk = large.reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(small - shrunk).mean() < 10


def test_sine_is_close() -> None:
    worst = max(abs(module._sine(a) / 65536 - math.sin(a / 65536 * 2 * math.pi)) for a in range(-70000, 70000, 7))
    assert worst < 2e-4


def test_placing_agrees_with_floating_point() -> None:
    """An unturned sprite at scale 1/2 in the middle is the sprite read at every second pixel's edge."""
    middle = [0, 1 << 15, 1 << 15, 1 << 15, 1 << 15]  # least scale; no turn, no stretch, no shift
    placed = module._place(disc(), 64, iter(middle), module.USUAL.scale, module.USUAL.rotation, module.USUAL.shift)
    art = disc().astype(float)
    art[..., :3] *= art[..., 3:] / 255
    expected = np.zeros((64, 64, 4))
    expected[16:48, 16:48] = art.reshape(32, 2, 32, 2, 4).mean((1, 3))
    lanes = np.stack([(placed >> np.uint64(16 * lane)) & np.uint64(255) for lane in range(4)], -1).astype(float)
    assert np.abs(lanes - expected).max() <= 2


def test_lanes_never_overflow() -> None:
    white = np.full((64, 64, 4), 255, dtype=np.uint8)
    for alpha in range(256):
        white[..., 3] = alpha
        art = module._premultiply(white)[2:-2, 2:-2]
        ground = np.full(art.shape, 0x00FF00FF00FF, dtype=np.uint64)
        total = module._over(art, ground)
        assert int(module._unpack(total).max()) <= 255
        assert int(total.max() >> np.uint64(48)) == alpha


def test_one_colour_artwork_stands_out() -> None:
    ground = np.full((8, 8), module._pack([120, 130, 125]), dtype=np.uint64)
    art = np.full((8, 8), 255 << 48, dtype=np.uint64)
    for ink in ([125, 125, 125], [250, 10, 100], [60, 60, 70]):
        inked = module._unpack(module._recolour(art, ground, ink))
        assert abs(float(inked.mean()) - 125) >= 60


def test_noise_has_the_stated_deviation() -> None:
    image = np.zeros((3, 64, 64), dtype=np.int32)
    module._add_noise(image, module.USUAL.noise, np.random.Philox(key=1))
    assert image.std() / (255 * 16) == pytest.approx(0.08, rel=0.03)
    assert abs(image.mean()) < 4


def test_ingredients_are_as_frequent_as_stated() -> None:
    with_one = [digest(scene(disc(), False, str(key), 16, disc())) for key in range(400)]
    without = [digest(scene(disc(), False, str(key), 16)) for key in range(400)]
    share = sum(a != b for a, b in zip(with_one, without, strict=True)) / 400
    assert 0.25 < share < 0.42
