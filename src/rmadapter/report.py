"""Pictures of what a predictor did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from rmadapter.files import write_atomic

TILE, LINE, GAP = 128, 15, 8
INK, RIGHT, WRONG, PAPER = "#1b1b1f", "#1a7f37", "#c0262d", "#ffffff"


class Shown(NamedTuple):
    """One tile of a contact sheet."""

    image: Image.Image
    predicted: str
    true: str


def contact_sheet(tiles: Sequence[Shown], title: str, path: Path, columns: int = 8) -> None:
    """Test images with the predicted name (green when right, red when wrong) above the true one, as a PNG."""
    height = TILE + 2 * LINE + 2 * GAP
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * height + 2 * LINE + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, fill=INK, font=ImageFont.load_default(15))
    font = ImageFont.load_default(12)
    for index, tile in enumerate(tiles):
        x, y = GAP + index % columns * (TILE + GAP), 2 * LINE + GAP + index // columns * height
        sheet.paste(tile.image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
        right = tile.predicted == tile.true
        draw.text((x, y + TILE + 2), _fit(tile.predicted, draw, font), fill=RIGHT if right else WRONG, font=font)
        if not right:
            draw.text((x, y + TILE + 2 + LINE), _fit(f"is {tile.true}", draw, font), fill=INK, font=font)
    write_atomic(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _fit(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, cut with an ellipsis where it is wider than a tile."""
    whole = text
    while draw.textlength(text, font=font) > TILE and len(text) > 1:
        text = text[:-2].rstrip() + "…" if text == whole else text[:-2].rstrip("… ") + "…"
    return text
