"""Icons of a set as 64 x 64 RGBA sprites, and sprites as a zip that is the same bytes whenever it is written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image
from sources import Package

SIZE = 64
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp of every zip entry: the earliest that the format can hold."""

BLANK = 0.01
"""A sprite whose visible share is below this is an icon that the renderer cannot draw."""


def svg(icons: Mapping[str, Any], name: str) -> str:
    """The icon as a document with a square view box centred on it."""
    icon = icons["icons"][name]
    left, top = (icon.get(side, icons.get(side, 0)) for side in ("left", "top"))
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} width="{SIZE}" height="{SIZE}" viewBox="{box}" color="#000">{icon["body"]}</svg>'


def sprite(icons: Mapping[str, Any], name: str) -> NDArray[np.uint8] | None:
    """The icon as (64, 64, 4) RGBA, or None where it comes out blank."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg(icons, name), skip_system_fonts=True))
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGBA"))
    if pixels.shape != (SIZE, SIZE, 4):
        raise ValueError(f"{name}: rendered as {pixels.shape}")
    pixels[pixels[..., 3] == 0] = 0  # what lies under full transparency is never seen and would only cost bytes
    return pixels if (pixels[..., 3] > 40).mean() >= BLANK else None


def sprites(package: Package, icons: Mapping[str, str]) -> dict[str, NDArray[np.uint8]]:
    """Concept hex id -> sprite for the named icons of a set, blank ones left out."""
    content = package.json("icons.json")
    drawn = {hex_id: sprite(content, name) for hex_id, name in icons.items()}
    return {hex_id: pixels for hex_id, pixels in drawn.items() if pixels is not None}


def webp(pixels: NDArray[np.uint8]) -> bytes:
    """A sprite as lossless WebP; quality is effort here, and 100 takes ten times as long for 2 % fewer bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "WEBP", lossless=True, quality=90, method=6)
    return buffer.getvalue()


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files in the order of their names, stored and with one fixed time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # otherwise the byte depends on the platform
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
