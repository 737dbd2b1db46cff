"""Image files to RGB: upright, transparency on white, and a clear error that names a file that cannot be read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import cast

from PIL import Image, UnidentifiedImageError

from rmadapter.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"})
# What a file's first bytes may say that it is, whatever its suffix. Others stay shut: Pillow would hand an EPS file to
# Ghostscript, which runs what is in it.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
# What Pillow raises on damaged files: found by changing bytes of files of every format above. A warning is among them
# where Python was told to raise them.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, TypeError, IndexError, Warning)
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(path: Path) -> Image.Image:
    """An image file in RGB, turned upright by its EXIF orientation, transparency composed onto white.

    Of an animation it is the first frame. Up to 178 megapixels are opened, as much as Pillow takes; from 89 on Pillow
    warns, which a process may turn into an error.

    Raises:
        DataError: naming the file, when it is missing, empty, damaged, or too large to be a photo.
    """
    try:
        # By a stream, not by its path: Pillow 13 maps a raw TIFF that is to be turned with its sides swapped.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            image.load()
            return _upright(to_rgb(image), image)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large to be opened safely", got=str(error), remedy="resize it first") from error
    except DAMAGED as error:
        if _is_empty(path):
            raise DataError(f"{path} is empty: it has 0 bytes", remedy="copy it again, or remove it") from None
        reason = str(error).replace(str(path), path.name) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"its content is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(f"{path} is not a readable image", got=reason, remedy="repair or remove it") from error


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:  # a folder that may not be entered, a name that is too long
        return False


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    turn = UPRIGHT.get(source.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: what is transparent becomes white, 16 bits become 8. ValueError for other depths."""
    if image.mode.startswith("I"):
        image = image.convert("I")
        low, high = cast("tuple[int, int]", image.getextrema())  # Pillow would clip 16-bit levels at 255
        if low < 0 or high >= 1 << 16:
            raise ValueError(f"levels of {low} to {high} are not an image's")
        scale = 1 / 257 if high > 255 else 1
        image = image.point(lambda level: level * scale).convert("L")
        image.info.pop("transparency", None)  # a level of 16 bits: it would make another level of 8 bits transparent
    if image.mode == "F":
        raise ValueError("floating-point levels have no known range")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
