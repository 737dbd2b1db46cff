"""Any image file to RGB, or an error that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmadapter.data.images import is_image, read_image
from rmadapter.errors import DataError


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA"])
def test_modes(mode: str, tmp_path: Path) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (5, 4), "white").convert(mode).save(file)
    image = read_image(file)
    assert image.mode == "RGB" and image.size == (5, 4)
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_become_eight(mode: str, tmp_path: Path) -> None:
    levels = np.array([[0, 257 * 10, 257 * 200, 65535]], dtype=np.uint16 if mode == "I;16" else np.int32)
    Image.fromarray(levels).save(tmp_path / "x.tif")
    assert [read_image(tmp_path / "x.tif").getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 10, 200, 255)]


def test_depths_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.new("F", (3, 3), 0.5).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="no known range"):
        read_image(tmp_path / "x.tif")
    Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32)).save(tmp_path / "y.tif")
    with pytest.raises(DataError, match="not an image's"):
        read_image(tmp_path / "y.tif")


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (200, 0, 0, 0)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").getpixel((1, 1)) == (255, 255, 255)


def test_upright_by_exif(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 3), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (3, 6)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_broken_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png is not a readable image"):
        read_image(tmp_path / "x.png")


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"half\.png is not a readable image"):
        read_image(tmp_path / "half.png")
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large to be opened safely"):
        read_image(tmp_path / "x.png")


def test_names_of_images() -> None:
    assert is_image(Path("a/B.JPG")) and is_image(Path("x.webp"))
    assert not is_image(Path("a.txt")) and not is_image(Path(".hidden.png")) and not is_image(Path("jpg"))
