"""Tasks from folders, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from rmadapter import ZeroShot, evaluate, load_backbone, load_task, sweep
from rmadapter.arms import arms
from rmadapter.data import Task
from rmadapter.data.export import export_task
from rmadapter.data.readers import read_manifest
from rmadapter.data.task import Manifest
from rmadapter.errors import DataError


def test_class_folders(photos: Path) -> None:
    task = load_task(photos)
    assert task.classes == ("otter", "red panda", "tree frog")
    assert task.template == "a photo of a {}."
    for split, count in ((task.train, 3), (task.val, 1), (task.test, 2)):
        assert [split.labels.count(label) for label in range(3)] == [count] * 3
    names = [item.picture.name for split in (task.train, task.val, task.test) for item in split]
    assert len(set(names)) == 18 and "red_panda/0.png" in names
    assert task.manifest() == load_task(photos).manifest()
    assert task.manifest() != load_task(photos, split_seed=2).manifest()
    assert task.train.items[0].picture.open().mode == "RGB"
    assert load_task(photos, template="an icon of a {}.").template == "an icon of a {}."


def test_a_manifest_keeps_its_split_when_files_are_added(photos: Path) -> None:
    task = load_task(photos)
    Image.new("RGB", (4, 4)).save(photos / "otter" / "00.png")
    again = read_manifest(Manifest.parse(json.loads(json.dumps(task.manifest().plain())), "test"), photos)
    assert again.sha256() == task.sha256()
    assert [item.picture.open().size for item in again.test] == [item.picture.open().size for item in task.test]
    assert load_task(photos).sha256() != task.sha256()


def test_export_and_read_again(few: Task, tmp_path: Path) -> None:
    small = few.shots(2, seed=1)
    export_task(small, tmp_path / "out")
    read = load_task(tmp_path / "out")
    assert read.classes == small.classes and read.template == small.template and read.name == small.name
    for one, other in ((read.train, small.train), (read.val, small.val), (read.test, small.test)):
        assert one.labels == other.labels
        for a, b in zip(one, other, strict=True):
            assert a.picture.open().tobytes() == b.picture.open().tobytes()


def write_split(folder: Path, **changes: object) -> None:
    train, test = ([[f"a/{i}.png", 0, "cat"], [f"b/{i}.png", 1, "dog"]] for i in range(2))
    (folder / "split.json").write_text(json.dumps({"train": train, "val": [], "test": test, **changes}))
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        for index in range(2):
            Image.new("RGB", (4, 4)).save(folder / "images" / name / f"{index}.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": [["./a/0.png", 0, "cat"], ["b/1.png", 1, "dog"]]}, "stands in train and in test"),
        ({"train": [["a/0.png", 0, "cat"], ["b/../a/0.png", 1, "dog"]]}, "stands under two labels"),
        ({"train": [["a/0.png", 0, "cat"]], "test": [["a/1.png", 0, "cat"]]}, "one class"),
    ],
)
def test_split_files_that_leak_or_cannot_be_learned(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_split(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load_task(tmp_path)


def test_split_files(tmp_path: Path) -> None:
    write_split(tmp_path)
    assert load_task(tmp_path).classes == ("cat", "dog")
    for changes, message in (
        ({"train": [["a/0.png", 0, "cat"], ["b/0.png", 0, "dog"]]}, "label 0 has two names"),
        ({"train": [["a/0.png", 0]]}, r"split\.json: train is not valid"),
        ({"train": [["a/0.png", 4, "owl"]]}, "labels must be 0 to n - 1"),
        ({"val": [["c/0.png", 0, "cat"]]}, r"c/0\.png belongs to the split but is not on disk"),
        ({"train": [["a/0.png", "x", "cat"]]}, r"split\.json: train is not valid"),
        ({"val": [["a/0.png", 0, "cat"]]}, r"a/0\.png stands in train and in val"),
        ({"extra": []}, r"split\.json: unknown setting 'extra'"),
    ):
        write_split(tmp_path, **changes)
        with pytest.raises(DataError, match=message):
            load_task(tmp_path)
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(DataError, match=r"split\.json cannot be read"):
        load_task(tmp_path)
    write_split(tmp_path)
    for content, message in (("[1]", "does not hold an object"), ('{"template": 3}', "template is not valid")):
        (tmp_path / "task.json").write_text(content)
        with pytest.raises(DataError, match=message):
            load_task(tmp_path)


def test_part_folders(photos: Path, tmp_path: Path) -> None:
    for part, indices in (("train", (0, 1, 2)), ("valid", (3,)), ("test", (4, 5))):
        for folder in photos.iterdir():
            (tmp_path / "parts" / part / folder.name).mkdir(parents=True)
            for index in indices:
                (tmp_path / "parts" / part / folder.name / f"{index}.png").write_bytes(
                    (folder / f"{index}.png").read_bytes()
                )
    task = load_task(tmp_path / "parts")
    assert task.classes == ("otter", "red panda", "tree frog")
    assert [len(split) for split in (task.train, task.val, task.test)] == [9, 3, 6]
    assert "train" in task.note
    (tmp_path / "parts" / "test" / "cat").mkdir()
    with pytest.raises(DataError, match=r"classes that .* has not"):
        load_task(tmp_path / "parts")
    (tmp_path / "parts" / "val").mkdir()
    with pytest.raises(DataError, match="two folders for val"):
        load_task(tmp_path / "parts")
    (tmp_path / "two" / "test" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="needs a train folder"):
        load_task(tmp_path / "two")


def test_all_may_be_learned_from(photos: Path, tmp_path: Path) -> None:
    """Without test images there is a task, and nothing scores it."""
    photos.rename(tmp_path / "train")
    task = load_task(tmp_path)
    assert [len(split) for split in (task.train, task.val, task.test)] == [18, 0, 0] and "0 test images" in task.note
    rows = [[item.picture.name, item.label, task.classes[item.label]] for item in task.train_items]
    (tmp_path / "split.json").write_text(json.dumps({"train": rows}))
    assert load_task(tmp_path).train_items == task.train_items
    lines = [f"{path},{name},train" for path, _, name in rows]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    assert load_task(tmp_path / "list.csv").train.labels == task.train.labels
    with pytest.raises(DataError, match="has no test images"):
        evaluate(ZeroShot(load_backbone("pictoclip-s")).predictor(task.classes), task.test)
    with pytest.raises(DataError, match="has no test images to score"):
        sweep.plan("base-to-novel", arms(["zero_shot"], {}, {}), data=[str(tmp_path)])


def test_images_beside_the_class_folders_are_said(photos: Path) -> None:
    Image.new("RGB", (4, 4)).save(photos / "loose.png")
    assert "left out: 1 beside the class folders" in load_task(photos).note


def test_parts_beside_other_folders_are_no_classes(photos: Path, tmp_path: Path) -> None:
    for name in ("train", "test", "raw"):
        shutil.copytree(photos, tmp_path / "whole" / name)
    with pytest.raises(DataError, match=r"beside others\n.*raw, test, train"):
        load_task(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole" / "test")
    assert set(load_task(tmp_path / "whole").classes) == {"raw", "train"}, "one alone may be a class"


def test_bad_folders(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task, no folder and no file"):
        load_task(tmp_path / "nowhere")
    with pytest.raises(DataError, match="did you mean 'pictograms/animals'"):
        load_task("pictograms/animal")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_task(tmp_path / "empty")
    (tmp_path / "empty" / "one").mkdir()
    with pytest.raises(DataError, match="has one class"):
        load_task(tmp_path / "empty")
    (photos / "Red Panda").mkdir()
    with pytest.raises(DataError, match="too few images"):
        load_task(photos)
    for index in range(2):
        Image.new("RGB", (4, 4)).save(photos / "Red Panda" / f"{index}.png")
    with pytest.raises(DataError, match="two classes have the same name"):
        load_task(photos)


def test_templates_need_one_place(photos: Path) -> None:
    for template in ("", "a photo", "a {} of a {}"):
        with pytest.raises(DataError, match="exactly one"):
            load_task(photos, template=template)
