"""The ten tasks inside the package: what they hold, and what they must never do."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmadapter.data import pictograms
from rmadapter.data.export import export_task, folder_names
from rmadapter.data.pictograms import Scene
from rmadapter.data.task import Item, Split, Task
from rmadapter.errors import DataError, UserError

NAMES = pictograms.task_names()


def scenes(split: Split) -> list[Scene]:
    found = [item.picture for item in split if isinstance(item.picture, Scene)]
    assert len(found) == len(split)
    return found


def few(task: Task, classes: int) -> Task:
    """The first classes of a task, two items a class and part."""

    def cut(split: Split) -> tuple[Item, ...]:
        return tuple(i for label in range(classes) for i in [item for item in split if item.label == label][:2])

    return Task(task.name, task.classes[:classes], task.template, cut(task.train), cut(task.val), cut(task.test))


def test_ten_tasks() -> None:
    assert len(NAMES) == 10
    assert list(NAMES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_counts(name: str) -> None:
    task = pictograms.load(name)
    assert task.name == f"pictograms/{name}"
    assert task.template == "a pictogram of a {}."
    assert 20 <= len(task.classes) <= 130
    for split, count in ((task.train, 24), (task.val, 8), (task.test, 16)):
        assert Counter(split.labels) == dict.fromkeys(range(len(task.classes)), count)


@pytest.mark.parametrize("name", NAMES)
def test_every_split_of_a_class_has_every_style(name: str) -> None:
    task = pictograms.load(name)
    for split in (task.train, task.val, task.test):
        used: dict[str, Counter[str]] = {}
        for picture in scenes(split):
            used.setdefault(picture.concept, Counter())[picture.style] += 1
        for concept in pictograms.concepts(name):
            counts = used[concept.hex]
            assert set(counts) == set(concept.styles)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_no_class_name_twice() -> None:
    names = [name for task in NAMES for name in pictograms.load(task).classes]
    assert len(names) == len(set(names))
    assert all(name == " ".join(name.lower().split()) for name in names)


def test_splits_are_disjoint() -> None:
    names = [p.name for t in NAMES for s in _splits(pictograms.load(t)) for p in scenes(s)]
    assert len(names) == len(set(names))
    task = few(pictograms.load("plants"), 4)
    drawn = [picture.open().tobytes() for split in _splits(task) for picture in scenes(split)]
    assert len(drawn) == len(set(drawn)) == 24


def _splits(task: Task) -> tuple[Split, Split, Split]:
    return task.train, task.val, task.test


def test_base_and_novel_classes_mix_subgroups() -> None:
    rows = json.loads((pictograms.FOLDER / "concepts.json").read_text(encoding="utf-8"))
    subgroup = {row["hex"]: row["subgroup"] for row in rows}
    order = [subgroup[concept.hex] for concept in pictograms.concepts("animals")]
    half = len(order) // 2
    assert {"animal-mammal", "animal-bird", "animal-bug"} <= set(order[:half]) & set(order[half:])


def test_open_is_rgb_and_repeatable() -> None:
    picture = pictograms.load("animals").test_items[0].picture
    image = picture.open()
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert image.tobytes() == picture.open().tobytes()
    assert picture.name.startswith("animals/")
    assert picture.name.endswith("/test/0")


@pytest.mark.parametrize("style", pictograms.STYLES)
def test_sprites(style: str) -> None:
    """Every stored sprite opens, is visible, and is what concepts.json promises."""
    with zipfile.ZipFile(pictograms.FOLDER / "sprites" / f"{style}.zip") as archive:
        assert archive.testzip() is None
        stored = {name.removesuffix(".webp"): archive.getinfo(name) for name in archive.namelist()}
        some = next(iter(stored))
        assert archive.read(f"{some}.webp")[:4] == b"RIFF"
    promised = {c.hex for task in NAMES for c in pictograms.concepts(task) if style in c.styles}
    assert set(stored) == promised
    for hex_id, entry in stored.items():
        assert entry.compress_type == zipfile.ZIP_STORED
        pixels = pictograms.sprite.__wrapped__(hex_id, style)  # past the cache, which other tests share
        assert pixels.shape == (64, 64, 4)
        assert pixels.dtype == np.uint8
        assert (pixels[..., 3] > 40).mean() > 0.01


def test_sprites_are_read_only() -> None:
    picture = scenes(pictograms.load("food").test)[0]
    with pytest.raises(ValueError, match="read-only"):
        pictograms.sprite(picture.concept, picture.style)[0, 0, 0] = 1


def test_unknown_task() -> None:
    with pytest.raises(DataError, match="did you mean 'animals'"):
        pictograms.load("animal")


def test_licences() -> None:
    text = (pictograms.FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for style in pictograms.STYLES:
        assert any(row.startswith(f"| {style} |") and ("MIT" in row or "Apache-2.0" in row) for row in rows), style
    licences = list((pictograms.FOLDER / "licenses").iterdir())
    assert licences
    assert all(path.name in text and path.stat().st_size > 1000 for path in licences)


def test_shipped_size() -> None:
    assert sum(path.stat().st_size for path in pictograms.FOLDER.rglob("*") if path.is_file()) < 8e6


def test_loading_is_without_torch() -> None:
    code = (
        "import sys\nfrom rmadapter.data import pictograms\n"
        "pictograms.load('office').test_items[0].picture.open()\nprint('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False"


def test_export(tmp_path: Path) -> None:
    task, seen = few(pictograms.load("animals"), 3), []
    folder = export_task(task, tmp_path / "a", progress=seen.append)
    assert seen == [1] * 18
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    assert {part: len(rows) for part, rows in split.items()} == {"train": 6, "val": 6, "test": 6}
    for part, items in (("train", task.train_items), ("val", task.val_items), ("test", task.test_items)):
        for (path, label, name), item in zip(split[part], items, strict=True):
            assert (label, name) == (item.label, task.classes[label])
            with Image.open(folder / "images" / path) as image:
                assert image.tobytes() == item.picture.open().tobytes()
    about = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    assert about == {"name": "pictograms/animals", "template": "a pictogram of a {}."}


def test_export_gives_the_same_bytes(tmp_path: Path) -> None:
    task = few(pictograms.load("food"), 2)
    first, second = (export_task(task, tmp_path / name) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 14
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_export_needs_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        export_task(few(pictograms.load("food"), 1), tmp_path)


def test_folder_names_are_safe_and_unique() -> None:
    assert folder_names(("red panda", "woman's hat", "a/b")) == ["red_panda", "woman_s_hat", "a_b"]
    names = folder_names(("C++", "c", "../c"))
    assert len({name.lower() for name in names}) == 3
    assert not any("/" in name or "." in name for name in names)
