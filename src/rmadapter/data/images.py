"""Image files to RGB: upright, transparency on white, and a clear error that names a file that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from rmadapter.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"})


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(path: Path) -> Image.Image:
    """An image file in RGB, turned upright by its EXIF orientation, transparency composed onto white.

    Raises:
        DataError: naming the file, when it is missing, damaged, or too large to be a photo (a decompression bomb).
    """
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be opened safely", got=str(error), remedy="resize it first") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is not a readable image",
            got=str(error).replace(str(path), path.name),
            remedy="repair or remove it",
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: what is transparent becomes white, 16 bits become 8. ValueError for other depths."""
    if image.mode.startswith("I"):
        low, high = cast("tuple[int, int]", image.getextrema())  # Pillow would clip 16-bit levels at 255
        if low < 0 or high >= 1 << 16:
            raise ValueError(f"levels of {low} to {high} are not an image's")
        scale = 1 / 257 if high > 255 else 1
        image = image.convert("I").point(lambda level: level * scale).convert("L")
    if image.mode == "F":
        raise ValueError("floating-point levels have no known range")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
