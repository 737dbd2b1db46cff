"""Public data sets in their true layout, tiny: what tests of readers and of ``data check`` read.

python tests/trees.py DIR      all eleven, for a try of the whole public path (rmadapter reproduce … --root DIR)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rmadapter.data.catalog import entry

Rows = Sequence[tuple[str, int, str]]


def picture(path: Path, color: str | tuple[int, int, int] = "teal") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def split_tree(root: Path, name: str, train: Rows, val: Rows = (), test: Rows = ()) -> None:
    """A data set with a split JSON: the file, and every image that it names."""
    known = entry(name)
    write(root / known.folder / known.files[0], json.dumps({"train": train, "val": val, "test": test}))
    for path, _, _ in (*train, *val, *test):
        picture(root / known.folder / known.images / path)
    for folder in known.folders:
        (root / known.folder / folder).mkdir(parents=True, exist_ok=True)


def one_each(names: Sequence[str], form: str) -> tuple[Rows, Rows]:
    """A training and a test image of every class."""
    return tuple(  # type: ignore[return-value]
        [(form.format(name.strip("/"), part), label, name) for label, name in enumerate(names)] for part in ("1", "2")
    )


def aircraft_tree(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    write(folder / "variants.txt", "707-320\nF/A-18\nDC-3\n")
    for part, lines in {
        "train": ["11 F/A-18", "10 707-320", "12 DC-3"],
        "val": ["20 DC-3"],
        "test": ["30 707-320"],
    }.items():
        write(folder / f"images_variant_{part}.txt", "\n".join(lines) + "\n")
        for line in lines:
            picture(folder / "images" / f"{line.split()[0]}.jpg")


WNIDS = {
    "n01": "great white shark",
    "n02": "missile",
    "n03": "sunglasses",
    "n04": "missile",
    "n05": "crane bird",
    "n06": "sunglasses",
}


def imagenet_tree(root: Path) -> None:
    folder = root / "imagenet"
    write(folder / "classnames.txt", "".join(f"{wnid} {name}\n" for wnid, name in reversed(WNIDS.items())))
    for wnid in WNIDS:
        for index in (2, 10, 1):
            picture(folder / "images" / "train" / wnid / f"{wnid}_{index}.JPEG")
        picture(folder / "images" / "val" / wnid / f"val_{wnid}.JPEG")


def variants_tree(root: Path) -> None:
    names = "".join(f"{wnid} {name}\n" for wnid, name in reversed(WNIDS.items()))
    for name in ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"):
        known = entry(name)
        write(root / known.folder / "classnames.txt", names)
        some = (
            ["0", "1", "5"]
            if name == "imagenetv2"
            else list(WNIDS)
            if name == "imagenet_sketch"
            else ["n02", "n04", "n05"]
        )
        for folder in some:
            picture(root / known.folder / known.images / folder / "a.jpeg")
            write(root / known.folder / known.images / "README.txt", "not a class")


NAMES = {
    "caltech101": ("face", "leopard", "motorbike", "accordion"),
    "oxford_pets": ("abyssinian", "american_bulldog", "beagle", "pug"),
    "stanford_cars": ("2012 Ram C/V Cargo Van Minivan", "2012 Acura TL Sedan", "2007 BMW X5 SUV"),
    "oxford_flowers": ("pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea"),
    "food101": ("apple_pie", "baby_back_ribs", "sushi"),
    "sun397": ("/a/abbey", "/a/apartment_building/outdoor", "/z/zen_garden"),
    "dtd": ("banded", "blotchy", "braided", "zigzagged"),
    "eurosat": tuple(entry("eurosat").labels[label] for label in range(10)),
    "ucf101": ("ApplyEyeMakeup", "Archery", "YoYo"),
}
"""A few classes of each data set that has a split JSON."""
PARTS = {"train": 4, "val": 1, "test": 2}
"""Images a class."""


def every_tree(root: Path) -> None:
    """All eleven, each class in a colour of its own."""
    for name, names in NAMES.items():
        rows = {
            part: [(f"{part}/{k}_{i}.jpg", k, label) for k, label in enumerate(names) for i in range(count)]
            for part, count in PARTS.items()
        }
        split_tree(root, name, *rows.values())
        for path, label, _ in (row for part in rows.values() for row in part):
            picture(root / entry(name).folder / entry(name).images / path, color(label))
    aircraft, variants = root / "fgvc_aircraft", ("707-320", "DC-3", "F/A-18", "Yak-42")
    write(aircraft / "variants.txt", "".join(f"{variant}\n" for variant in variants))
    for number, (part, count) in enumerate(PARTS.items()):
        rows_of = [(f"{number}{label}{i}", label) for label in range(len(variants)) for i in range(count)]
        lines = "".join(f"{image} {variants[label]}\n" for image, label in rows_of)
        write(aircraft / f"images_variant_{part}.txt", lines)
        for image, label in rows_of:
            picture(aircraft / "images" / f"{image}.jpg", color(label))
    imagenet_tree(root)


def color(label: int) -> tuple[int, int, int]:
    return 25 * label, 250 - 25 * label, 90 * (label % 3)


if __name__ == "__main__":
    every_tree(Path(sys.argv[1]))
