"""Folders as they lie on disks: links, loops, strange names, and what is left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from rmadapter import load_task
from rmadapter.data import Task
from rmadapter.data.task import class_key
from rmadapter.errors import DataError


def names(task: Task) -> list[str]:
    return sorted(item.picture.name for part in (task.train, task.val, task.test) for item in part)


def test_what_is_left_out_is_counted(photos: Path) -> None:
    (photos / "otter" / "more" / "deep").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(photos / "otter" / "more" / "deep" / "x.png")
    for name in ("a.txt", "b.HEIC", "c.txt", "more/README", ".hidden.png", ".DS_Store"):
        (photos / "otter" / name).write_bytes(b"")
    (photos / "otter" / ".cache").mkdir()
    Image.new("RGB", (4, 4)).save(photos / "otter" / ".cache" / "x.png")
    (photos / "loose.jpg").write_bytes(b"")
    task = load_task(photos)
    assert len(names(task)) == 19 and "otter/more/deep/x.png" in names(task)
    assert task.note == (
        "class folders: 19 images of 3 classes; 50/20/30 % a class by seed 1: 10 training, 3 validation and 6 test "
        "images; left out: 1 beside the class folders, 4 that are not images (2 .txt, 1 .heic, 1 no suffix)"
    )


def test_linked_folders_and_files_are_followed(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for folder in photos.iterdir():
        (tmp_path / "linked" / folder.name).symlink_to(folder)
    assert names(load_task(tmp_path / "linked")) == names(load_task(photos))
    (tmp_path / "files" / "cat").mkdir(parents=True)
    (tmp_path / "files" / "dog").mkdir()
    for index in range(3):
        (tmp_path / "files" / "cat" / f"{index}.png").symlink_to(photos / "otter" / f"{index}.png")
        (tmp_path / "files" / "dog" / f"{index}.png").symlink_to(photos / "red_panda" / f"{index}.png")
    task = load_task(tmp_path / "files")
    assert len(names(task)) == 6 and task.train.items[0].picture.open().mode == "RGB"


def test_loops_neither_hang_nor_count_twice(photos: Path) -> None:
    before = load_task(photos)
    (photos / "otter" / "up").symlink_to(photos, target_is_directory=True)
    (photos / "otter" / "self").symlink_to(photos / "otter", target_is_directory=True)
    (photos / "otter" / "root").symlink_to("/", target_is_directory=True)
    (photos / "otter" / "nothing.png").symlink_to(photos / "gone.png")
    (photos / "otter" / "circle.png").symlink_to(photos / "otter" / "circle.png")
    (photos / "otter" / "again.png").symlink_to(photos / "otter" / "0.png")
    (photos / "all").symlink_to(photos, target_is_directory=True)
    after = load_task(photos)
    assert after.classes == before.classes and len(names(after)) == len(names(before))
    assert "left out: 7 links" in after.note


def test_one_image_is_not_in_two_classes(photos: Path) -> None:
    (photos / "otter" / "more").symlink_to(photos / "red_panda", target_is_directory=True)
    with pytest.raises(DataError, match="are the same file"):
        load_task(photos)


def test_nothing_is_both_learned_from_and_tested_on(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for part in ("train", "test"):
        (tmp_path / "parts" / part).symlink_to(photos, target_is_directory=True)
    with pytest.raises(DataError, match="are the same file"):
        load_task(tmp_path / "parts")


def test_names_that_are_not_utf8(photos: Path, tmp_path: Path) -> None:
    strange = os.fsencode(photos / "otter") + b"/caf\xe9.png"
    try:
        with open(strange, "wb"):  # noqa: PTH123
            pass
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    with pytest.raises(DataError) as error:
        load_task(photos)
    assert r"caf\udce9.png" in str(error.value) and "rename it" in str(error.value)
    json.dumps(str(error.value)).encode()
    os.unlink(strange)  # noqa: PTH108
    moved = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    photos.rename(moved)
    with pytest.raises(DataError, match="not UTF-8") as error:
        load_task(moved)
    str(error.value).encode()


def test_folders_without_images(photos: Path, tmp_path: Path) -> None:
    (photos / "tapir").mkdir()
    with pytest.raises(DataError, match=r"tapir has too few images[^$]*remove the folder"):
        load_task(photos)
    (photos / "tapir" / "0.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"0 \(and 1 files of other kinds: .heic\)"):
        load_task(photos)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "parts" / "train" / "cat" / "x.png")
    with pytest.raises(DataError, match="dog has no images in it"):
        load_task(tmp_path / "parts")
    Image.new("RGB", (4, 4)).save(tmp_path / "parts" / "train" / "dog" / "x.png")
    with pytest.raises(DataError, match="test has no images to test on"):
        load_task(tmp_path / "parts")


def test_names_that_read_the_same(photos: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        (photos / name).mkdir()
        for index in range(2):
            Image.new("RGB", (4, 4)).save(photos / name / f"{index}.png")
    if len(list(photos.iterdir())) < 5:
        pytest.skip("this disk takes both for one name")
    with pytest.raises(DataError, match="two classes have the same name"):
        load_task(photos)


def test_split_files_by_path_and_by_their_only_name(photos: Path) -> None:
    rows = {
        part: [[f"otter/{i}.png", 0, "otter"], [f"red_panda/{i}.png", 1, "red_panda"]]
        for i, part in enumerate(("train", "val", "test"))
    }
    (photos / "split_zhou_Pets.json").write_text(json.dumps(rows))
    task = load_task(photos)
    assert task.classes == ("otter", "red panda") and task.name == "photos" and task.root == photos
    assert task.note == "split_zhou_Pets.json: 2 training, 2 validation and 2 test images of 2 classes"
    by_path = load_task(photos / "split_zhou_Pets.json")
    assert by_path.name == "split_zhou_Pets" and by_path.sha256() == task.sha256() and by_path.root == photos
    (photos / "images").mkdir()
    (photos / "otter").rename(photos / "images" / "otter")
    assert load_task(photos / "split_zhou_Pets.json").sha256() == task.sha256()
    (photos / "split_other.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"several split files\n.*split_other\.json, split_zhou_Pets\.json"):
        load_task(photos)
    (photos / "split.json").write_text(json.dumps({**rows, "val": []}))
    assert len(load_task(photos).val) == 0


def test_names_are_compared_however_they_are_written() -> None:
    assert class_key("  Dark_Caf\u00e9 ") == class_key("dark cafe\u0301") != class_key("dark cafe")
