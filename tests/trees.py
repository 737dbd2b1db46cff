"""Public data sets in their true layout, tiny: what tests of readers and of ``data check`` read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rmadapter.data.catalog import entry

Rows = Sequence[tuple[str, int, str]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "teal").save(path)


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
