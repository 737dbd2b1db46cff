"""Tables and pictures of what a predictor did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rmadapter import plots
from rmadapter.data.task import Split
from rmadapter.evaluation import Scores
from rmadapter.files import csv_text, write_atomic, write_text

TILE, LINE, GAP = 128, 15, 8
MISTAKES = 24
"""Tiles on the sheet of mistakes, at most."""
PICTURES = ("confusion.png", "reliability.png", "mistakes.png")
INK, RIGHT, WRONG, PAPER = "#1b1b1f", "#1a7f37", "#c0262d", "#ffffff"


class Shown(NamedTuple):
    """One tile of a contact sheet."""

    image: Image.Image
    predicted: str
    true: str
    confidence: float | None = None
    """Of the prediction, 0 to 1; None: not shown."""


class ClassRow(NamedTuple):
    """What became of the images of one class."""

    name: str
    images: int
    right: int
    accuracy: float
    """Percent; nan without images."""
    confused_with: str
    """The other class that most of its images were taken for, the first of several; empty where there is none."""
    confused: int
    """Number of these images."""

    def __str__(self) -> str:
        other = f", most often taken for {self.confused_with}" if self.confused else ""
        return f"{self.name}: {self.accuracy:.1f} % of {self.images}{other}"


def by_class(scores: Scores, names: Sequence[str]) -> list[ClassRow]:
    """A row a class, the worst first, ties in the order of the classes; classes without images come last."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows, accuracies = [], scores.class_accuracy.tolist()
    for label, name in enumerate(names):
        other = int(wrong[label].argmax())
        confused = int(wrong[label, other])
        images, right = int(scores.class_images[label]), int(scores.class_right[label])
        rows.append(ClassRow(name, images, right, accuracies[label], names[other] if confused else "", confused))
    return sorted(rows, key=lambda row: (math.isnan(row.accuracy), row.accuracy))


def write_tables(scores: Scores, split: Split, folder: Path) -> None:
    """``per_class.csv``, ``confusion.csv`` (rows true, columns predicted) and ``predictions.csv`` in UTF-8."""
    names = split.classes
    classes = (
        (row.name, row.images, row.right, f"{row.accuracy:.2f}" if row.images else "", row.confused_with, row.confused)
        for row in by_class(scores, names)
    )
    header = ("class", "images", "right", "accuracy", "most_confused_with", "confused")
    write_text(folder / "per_class.csv", csv_text([header, *classes]))
    cells = ((name, *row) for name, row in zip(names, scores.confusion.tolist(), strict=True))
    write_text(folder / "confusion.csv", csv_text([("true \\ predicted", *names), *cells]))
    items = (
        (item.picture.name, names[item.label], names[predicted], f"{confidence:.6f}")
        for item, predicted, confidence in zip(split, scores.predicted, scores.confidence, strict=True)
    )
    write_text(folder / "predictions.csv", csv_text([("image", "true", "predicted", "confidence"), *items]))


def write_pictures(scores: Scores, split: Split, title: str, folder: Path) -> None:
    """``confusion.png``, ``reliability.png``, and the most confident mistakes as ``mistakes.png``, if there are any."""
    confusion, reliability, mistakes = (folder / name for name in PICTURES)
    plots.confusion(scores, split.classes, title, confusion)
    plots.reliability(scores, title, reliability)
    wrong = [index for index, right in enumerate(scores.right) if not right]
    worst = sorted(wrong, key=lambda index: -scores.confidence[index])[:MISTAKES]
    if worst:
        tiles = [
            Shown(
                split.items[index].picture.open(),
                split.classes[scores.predicted[index]],
                split.classes[scores.labels[index]],
                scores.confidence[index],
            )
            for index in worst
        ]
        contact_sheet(tiles, f"{title}: the most confident of {len(wrong)} mistakes", mistakes)


def remove_pictures(folder: Path) -> None:
    """Take away pictures of earlier scores, so that none stands beside numbers it does not show."""
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)


def contact_sheet(tiles: Sequence[Shown], title: str, path: Path, columns: int = 8) -> None:
    """Images with the predicted name (green when right, red when wrong) above the true one, as a PNG.

    The name follows its confidence in percent, where a tile has one.
    """
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
        said = tile.predicted if tile.confidence is None else f"{tile.confidence:.0%} {tile.predicted}"
        draw.text((x, y + TILE + 2), _fit(said, draw, font), fill=RIGHT if right else WRONG, font=font)
        if not right:
            draw.text((x, y + TILE + 2 + LINE), _fit(f"is {tile.true}", draw, font), fill=INK, font=font)
    write_atomic(path, lambda temporary: sheet.save(temporary, format="PNG"))


def _fit(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, cut with an ellipsis where it is wider than a tile."""
    whole = text
    while draw.textlength(text, font=font) > TILE and len(text) > 1:
        text = text[:-2].rstrip() + "…" if text == whole else text[:-2].rstrip("… ") + "…"
    return text
