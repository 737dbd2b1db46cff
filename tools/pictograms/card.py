"""Writes the data card of Pictograms, docs/pictograms.md, and a contact sheet of every task and domain.

    python tools/pictograms/card.py

Counts and leakage figures are computed from what is shipped, so run it after every build of the artwork.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rmadapter.data import Task, load_task, pictograms
from rmadapter.data.fewshot import by_label

ROOT = Path(__file__).resolve().parents[2]
SHEETS = ROOT / "docs" / "images" / "pictograms"
ROWS, COLUMNS, TILE, NAME = 12, 10, 56, 150

ABOUT = """# Pictograms

<!-- Written by tools/pictograms/card.py: edit there. -->

A small world of real artwork with real names, in which few-shot methods and protocols run offline in minutes: ten
themes, one wide task of all kinds of things, and other domains of both. It stands in for the public data sets of the
field where these cannot be had: in tests, in a first try, on a laptop.

## What an image is

A sprite (one concept in one style, 64 x 64 pixels, from the sets in `src/rmadapter/data/pictograms/ATTRIBUTION.md`),
composed into a scene: background, scale, shift, rotation, a distractor, lighting, an occluding rectangle, blur, noise.
A scene is a pure function of (concept, style, split, index), in integer arithmetic with counter-based randomness: the
same bytes on every machine. Train, validation and test scenes share no index.

## Tasks

"""

CHOICE = """
## How classes were chosen

A concept of CLDR (skin tones dropped) is a class when fluent-emoji-flat and one more evaluation style draw it, three or
more of the pre-training styles draw it too (a novel class must be known to a model, as CLIP knows its novel classes),
its name is its own, and its picture can tell it from others: variants of sex and of facing, clock faces, and concepts
that differ by colour alone are out. A theme is a set of CLDR subgroups; a quarter of each theme, by hash, and what no
theme holds make the wide task. No class is in two tasks. Class order is by hash, so base and novel classes are alike.

## Leakage

Three things leak in such a world, and each is a choice that can be avoided:

- **Shots and tests share drawings.** In a theme every test scene shows a drawing that some training scene shows too,
  under other conditions. The `strict` tasks train on one family of drawings and test on another.
- **Families resemble each other.** By crude edge retrieval, a drawing of fxemoji finds its own concept first among the
  fluent-emoji-flat drawings of its theme in the share of cases below (flat against shaded drawings, which are one
  family, for scale).
- **Pre-training knows the concepts**, in other styles. That is meant: it is what zero-shot rests on. No evaluation
  style and no family relation of one was trained on.

"""

LIMITS = """
## What it is not good for

Numbers here do not predict numbers on photographs. Scenes are synthetic, classes have at most four drawings, CLDR names
are those of emoji, and the shipped models are small. Use it to compare methods under one protocol, to test code and to
learn; not to claim an accuracy for the world outside. Some concepts are fine distinctions for people too (medals,
arrows, faces), so no theme can reach 100 %.

## Sheets

"""


def edges(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Where brightness changes, at an eighth of the resolution, as unit vectors (n, d)."""
    rows = []
    for art in pictures:
        alpha = art[..., 3:].astype(float) / 255
        grey = (art[..., :3] * alpha + 255 * (1 - alpha)).mean(-1)
        small = grey.reshape(16, 4, 16, 4).mean((1, 3))
        found = np.concatenate([np.abs(np.diff(small, axis=0)).ravel(), np.abs(np.diff(small, axis=1)).ravel()])
        rows.append(found - found.mean())
    stacked = np.array(rows)
    normed: NDArray[np.float64] = stacked / np.linalg.norm(stacked, axis=1, keepdims=True).clip(1e-9)
    return normed


def retrieval(theme: str, style: str, among: str = "fluent-emoji-flat") -> float:
    """Percent of a style's drawings that find their own concept first among another style's."""
    both = [c.hex for c in pictograms.concepts(theme) if {style, among} <= set(c.styles)]
    own, other = (edges([pictograms.sprite(concept, s) for concept in both]) for s in (style, among))
    return float(100 * ((own @ other.T).argmax(1) == np.arange(len(both))).mean())


def sheet(task: Task, path: Path) -> None:
    """Test images of the first classes, with their names; two classes a row where a class has few images."""
    by_class = by_label(task.test_items)
    images = min(COLUMNS, len(by_class[0]))
    across = max(1, COLUMNS // images)
    canvas = Image.new("RGB", (across * (NAME + images * TILE), ROWS * TILE), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for label in range(min(ROWS * across, len(task.classes))):
        x, y = label % across * (NAME + images * TILE), label // across * TILE
        draw.text((x + 4, y + TILE // 2 - 8), task.classes[label][:24], fill="black", font=font)
        for column, item in enumerate(by_class[label][:images]):
            canvas.paste(item.picture.open().resize((TILE, TILE)), (x + NAME + column * TILE, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, "WEBP", quality=80)


def counts(names: list[str]) -> str:
    """A table of classes, images and what the task shows."""
    lines = ["| task | classes | train | val | test | shows |", "| --- | --- | --- | --- | --- | --- |"]
    for name in names:
        task = load_task(f"pictograms/{name}")
        sizes = " | ".join(str(len(split)) for split in (task.train, task.val, task.test))
        lines.append(f"| {name} | {len(task.classes)} | {sizes} | {task.note.partition(';')[0]} |")
    return "\n".join(lines) + "\n"


def leakage(themes: list[str]) -> str:
    """A table of retrieval across and within families."""
    lines = ["| theme | fxemoji finds its own, % | shaded finds its own, % | chance, % |", "| --- | --- | --- | --- |"]
    for theme in themes:
        drawn = sum("fxemoji" in concept.styles for concept in pictograms.concepts(theme))
        across, within = retrieval(theme, "fxemoji"), retrieval(theme, "fluent-emoji")
        lines.append(f"| {theme} | {across:.0f} | {within:.0f} | {100 / drawn:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the card and the sheets."""
    tasks = list(pictograms.task_names())
    domains = [name for task in tasks for name in pictograms.domain_names(task)]
    shown = tasks + [name for name in domains if name.startswith("wide") or name == "animals/fxemoji"]
    for name in shown:
        sheet(load_task(f"pictograms/{name}"), SHEETS / f"{name.replace('/', '-')}.webp")
    pictures = "\n".join(f"**{n}**\n\n![{n}](images/pictograms/{n.replace('/', '-')}.webp)\n" for n in shown)
    text = ABOUT + counts(tasks + domains) + CHOICE + leakage(tasks) + LIMITS + pictures
    (ROOT / "docs" / "pictograms.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
