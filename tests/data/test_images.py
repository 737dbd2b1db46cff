"""Any image file to RGB, or an error that names it."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rmadapter import load_task
from rmadapter.backbones.preprocess import Preprocess
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


def test_the_command_line_does_not_warn_of_large_photos(tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    code = (
        "import sys, pathlib, warnings; from PIL import Image; Image.MAX_IMAGE_PIXELS = 6000\n"
        "from rmadapter import cli; from rmadapter.data.images import read_image\n"
        "def command(**_):\n    read_image(pathlib.Path(sys.argv[1]))\n    warnings.warn('shown')\n"
        "cli.cli.main = command; cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True, check=True
    )
    assert result.stderr == "note: shown\n"


CORNERS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8) * 40
SEEN = {  # as the standard defines orientations: what a viewer shows of the stored rows above
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    9: [[1, 2, 3], [4, 5, 6]],  # no orientation: left as it is
}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_upright_by_exif(orientation: int, suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.kron(CORNERS, np.ones((16, 16), dtype=np.uint8)))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    found = np.asarray(read_image(tmp_path / f"x.{suffix}"))[8::16, 8::16, 0]
    assert (np.rint(found / 40) == SEEN[orientation]).all()


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 3), "red")
    exif = image.getexif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    image.save(tmp_path / "x.jpg", exif=exif)
    content = (tmp_path / "x.jpg").read_bytes()
    start = content.index(b"Exif")
    (tmp_path / "x.jpg").write_bytes(content[: start + 6] + bytes(8) + content[start + 14 :])
    assert read_image(tmp_path / "x.jpg").size in ((6, 3), (3, 6))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, color: int, row: bytes, width: int, transparent: bytes = b"") -> bytes:
    """A PNG of one row, for what Pillow does not write."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, color, 0, 0, 0))
    middle = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(16, 0, struct.pack(">HH", 0, 200 * 257), 2, struct.pack(">H", 200)), [(0, 0, 0), (200, 200, 200)]),
        (png(16, 2, struct.pack(">HHH", 257 * 9, 257 * 100, 65535), 1), [(9, 100, 255)]),
        (png(16, 4, struct.pack(">HH", 257 * 100, 65535), 1), [(100, 100, 100)]),
        (png(8, 2, bytes([9, 8, 7, 9, 8, 6]), 2, struct.pack(">HHH", 9, 8, 7)), [(255, 255, 255), (9, 8, 6)]),
        (png(8, 0, bytes([9, 8]), 2, struct.pack(">H", 9)), [(255, 255, 255), (8, 8, 8)]),
    ],
    ids=["grey 16 with transparency", "rgb 16", "grey alpha 16", "transparent colour", "transparent grey"],
)
def test_rarer_png(content: bytes, expected: list[tuple[int, ...]], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    image = read_image(tmp_path / "x.png")
    assert [image.getpixel((x, 0)) for x in range(image.width)] == expected


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 90, 80, 70])
    image.putpixel((1, 0), 1)
    seen = [((10, 20, 30), (90, 80, 70)), ((255, 255, 255), (90, 80, 70)), ((132, 137, 142), (90, 80, 70))]
    for (first, second), options in zip(seen, ({}, {"transparency": 0}, {"transparency": b"\x80"}), strict=True):
        image.save(tmp_path / "x.png", **options)
        found = read_image(tmp_path / "x.png")
        assert (found.getpixel((0, 0)), found.getpixel((1, 0))) == (first, second)
    image.save(tmp_path / "x.gif", transparency=0)
    assert read_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_is_not_inverted(suffix: str, tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / f"x.{suffix}")  # Pillow's JPEG is Adobe's inverted kind
    assert (b"Adobe" in (tmp_path / f"x.{suffix}").read_bytes()) == (suffix == "jpg")
    assert read_image(tmp_path / f"x.{suffix}").getpixel((4, 4)) == (0, 255, 255)


def test_big_endian_sixteen_bits(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257 * 7, 65535)).save(tmp_path / "x.tif")
    assert [read_image(tmp_path / "x.tif").getpixel((x, 0)) for x in range(2)] == [(7, 7, 7), (255, 255, 255)]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", "avif"])
def test_the_first_frame_counts(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "blue")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    red, _, blue = read_image(tmp_path / f"x.{suffix}").getpixel((8, 8))
    assert red > 250 and blue < 5


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_the_content_decides_not_the_suffix(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "white").save(tmp_path / "x.jpg", kind)
    assert read_image(tmp_path / "x.jpg").size == (5, 4)


def test_a_text_is_called_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("a recipe for soup")
    with pytest.raises(DataError, match=r"x\.jpg is not a readable image\n.*its content is not JPEG, PNG"):
        read_image(tmp_path / "x.jpg")


def test_no_other_program_is_ever_run(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "x.jpg", "EPS")  # Pillow would start Ghostscript
    with pytest.raises(DataError, match="its content is not JPEG"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (30000, 2), (300, 2)])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_odd_sizes_reach_the_model(
    size: tuple[int, int], resize: Literal["shortest", "squash"], tmp_path: Path
) -> None:
    Image.new("RGB", size, (7, 8, 9)).save(tmp_path / "x.png")
    preprocess = Preprocess(64, (0.5,) * 3, (0.5,) * 3, "bicubic", resize)
    pixels = preprocess(read_image(tmp_path / "x.png"))
    assert pixels.shape == (3, 64, 64)
    assert pixels.float().mean((1, 2)).tolist() == [7, 8, 9]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(900, 8), (8, 900), (2501, 11), (11, 2501)])
def test_a_strip_gives_what_resizing_all_of_it_would(
    size: tuple[int, int], interpolation: Literal["bicubic", "bilinear"], monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.linspace(0, 250, size[0] * size[1]).reshape(size[1], size[0])
    image = Image.fromarray(np.stack([ramp, 250 - ramp, ramp / 2], 2).astype(np.uint8))
    preprocess = Preprocess(32, (0.5,) * 3, (0.5,) * 3, interpolation, "shortest")
    found = preprocess(image).int()
    monkeypatch.setattr("rmadapter.backbones.preprocess.STRIP", 10**6)
    assert (found - preprocess(image).int()).abs().max() <= 1  # Pillow rounds between its two passes, in either order


SOURCES = [
    ("JPEG", "RGB"),
    ("JPEG", "CMYK"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("GIF", "P"),
    ("BMP", "RGB"),
    ("WEBP", "RGB"),
]


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(SOURCES), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damage_is_an_image_or_an_error_that_names_the_file(source: tuple[str, str], seed: int) -> None:
    stream = io.BytesIO()
    image = Image.effect_noise((31, 24), 50).convert("RGB").convert(source[1])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(stream, source[0], **({"exif": exif} if source == ("JPEG", "RGB") else {}))
    content, rng = bytearray(stream.getvalue()), random.Random(seed)
    for _ in range(rng.choice([1, 2, 8])):
        content[rng.randrange(min(len(content), 400))] = rng.randrange(256)
    if rng.random() < 0.2:
        del content[rng.randrange(len(content)) :]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
        file = Path(folder) / "x.img"
        file.write_bytes(content)
        try:
            assert read_image(file).mode == "RGB"
        except DataError as error:
            assert str(file) in error.problem


@pytest.mark.parametrize("content", [b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_broken_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png is not a readable image"):
        read_image(tmp_path / "x.png")


def test_empty_files_are_called_empty(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.jpg is empty: it has 0 bytes"):
        read_image(tmp_path / "x.jpg")


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"half\.png is not a readable image"):
        read_image(tmp_path / "half.png")
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")


def test_damaged_avif(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "x.avif")
    content = (tmp_path / "x.avif").read_bytes()
    pixels = content.index(b"mdat") + 4
    (tmp_path / "x.avif").write_bytes(content[:pixels] + bytes(len(content) - pixels))  # a RuntimeError in Pillow
    with pytest.raises(DataError, match=r"x\.avif is not a readable image"):
        read_image(tmp_path / "x.avif")


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"x\.png is too large to be opened safely"):
        read_image(tmp_path / "x.png")


def test_large_photos_are_opened_unless_warnings_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.warns(Image.DecompressionBombWarning):
        assert read_image(tmp_path / "x.png").size == (100, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"x\.png is too large to be opened safely"):
            read_image(tmp_path / "x.png")


def test_names_of_images() -> None:
    assert is_image(Path("a/B.JPG")) and is_image(Path("x.webp"))
    assert not is_image(Path("a.txt")) and not is_image(Path(".hidden.png")) and not is_image(Path("jpg"))


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a readable image"):
        read_image(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="there is no task"):
        load_task("x" * 300)
