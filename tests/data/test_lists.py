"""Tasks from .csv and .jsonl lists: what they give, and what each mistake is called."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from rmadapter import load_task
from rmadapter.data import Task
from rmadapter.errors import DataError

CLASSES = ("otter", "red_panda", "tree frog")


def write(folder: Path, name: str, rows: Iterable[dict[str, object]]) -> Path:
    """Rows as CSV or JSON Lines, by the name's suffix."""
    file, listed = folder / name, list(rows)
    with file.open("w", newline="", encoding="utf-8") as stream:
        if name.endswith(".csv"):
            writer = csv.DictWriter(stream, list(listed[0]))
            writer.writeheader()
            writer.writerows(listed)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in listed)
    return file


def rows(**columns: object) -> list[dict[str, object]]:
    """A row an image of the fixture ``photos``; a column that is a function is called with (class, index)."""
    return [
        {"path": f"{name}/{index}.png", "label": name}
        | {key: value(name, index) if callable(value) else value for key, value in columns.items()}
        for name in CLASSES
        for index in range(6)
    ]


def placed(task: Task) -> dict[str, tuple[str, str]]:
    """Image name to (part, class)."""
    parts = {"train": task.train, "val": task.val, "test": task.test}
    return {item.picture.name: (part, task.classes[item.label]) for part, items in parts.items() for item in items}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_list_is_split_as_the_folder_is(suffix: str, photos: Path) -> None:
    folder, file = load_task(photos), write(photos, f"all.{suffix}", rows())
    task = load_task(file)
    assert task.classes == folder.classes == ("otter", "red panda", "tree frog")
    assert placed(task) == placed(folder)
    assert task.name == "all" and task.root == photos
    assert task.test.items[0].picture.open().size == folder.test.items[0].picture.open().size
    write(photos, f"all.{suffix}", reversed(rows()))
    assert placed(load_task(file)) == placed(task), "the order of lines decides nothing"
    assert placed(load_task(file, split_seed=2)) != placed(task)
    assert "18 images of 3 classes" in task.note and "seed 1: 9 training, 3 validation and 6 test" in task.note
    assert load_task(file, template="an icon of a {}.").template == "an icon of a {}."


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_splits_and_names_as_listed(suffix: str, photos: Path) -> None:
    words = ["train", "Train", "validation", "valid", "val", "test"]
    names = {"otter": "sea otter", "red_panda": "panda", "tree frog": "frog"}
    listed = rows(split=lambda _, i: words[i], class_name=lambda name, _: names[name])
    task = load_task(write(photos, f"x.{suffix}", listed))
    assert task.classes == ("frog", "panda", "sea otter"), "in the order of the names"
    expected = ["train", "train", "val", "val", "val", "test"]
    assert placed(task) == {
        f"{name}/{i}.png": (part, names[name]) for name in CLASSES for i, part in enumerate(expected)
    }
    assert "split as listed: 6 training, 9 validation and 3 test images" in task.note


def test_numbers_order_the_classes(photos: Path) -> None:
    listed = rows(class_name=lambda name, _: name)
    for row in listed:
        row["label"] = 2 - CLASSES.index(str(row["label"]))
    assert load_task(write(photos, "x.jsonl", listed)).classes == ("tree frog", "red panda", "otter")
    assert load_task(write(photos, "x.csv", listed)).classes == ("tree frog", "red panda", "otter")


def test_absolute_paths(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    listed = rows()
    for row in listed:
        row["path"] = str(photos / str(row["path"]))
    task = load_task(write(tmp_path / "lists", "x.csv", listed))
    assert task.train.items[0].picture.name.startswith(f"{photos.as_posix()}/")
    assert task.train.items[0].picture.open().mode == "RGB"


def test_a_byte_order_mark_and_windows_line_ends(photos: Path) -> None:
    text = "path,label\n" + "".join(f"{row['path']}, {row['label']} \n" for row in rows())
    (photos / "x.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert len(load_task(photos / "x.csv").classes) == 3
    lines = "".join(json.dumps(row) + "\r\n" for row in rows())
    (photos / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert len(load_task(photos / "x.jsonl").classes) == 3


CSV_MISTAKES = [
    ("", "lists no images"),
    ("path,label\n", "lists no images"),
    ("label\n", r"x\.csv, line 1: no path"),
    ("path,label,spilt\n", r"line 1: unknown column 'spilt'[^$]*did you mean 'split'"),
    ("path;label\n", r"line 1: no column has a known name[^$]*separate columns by commas"),
    ("path,label,label\n", "line 1: column 'label' stands there twice"),
    ("path,label\notter/0.png,otter\notter/1.png\n", "line 3: 1 cells under a header of 2"),
    ("path,label\notter/0.png,cat, black\n", 'line 2: 3 cells[^$]*"double quotes"'),
    ('path,label\notter/0.png,"otter\n', "line 2: not CSV"),
    ("path,label\notter/0.png,\n", "line 2: an empty label"),
    ("path,label\n,otter\n", "line 2: an empty path"),
    ("path,label\notter/0.png,otter\nred_panda/9.png,panda\n", r"line 3: red_panda/9\.png is not on disk"),
    ("path,label\notter/0.png,otter\n\notter/../otter/0.png,cat\n", "line 4: .* stands in line 2 already"),
    ("path,label\notter/0.png,otter\notter/1.png,otter\n", "has one class"),
    ("path,label\notter/0.png,otter\notter/1.png,otter\ntree frog/1.png,frog\n", "'frog' has too few images"),
    ("path,label\notter/0.png,0\nred_panda/0.png,1\n", "labels are numbers[^$]*add a column class_name"),
    ("path,label,class_name\notter/0.png,0,a\notter/1.png,2,b\n", "must be 0 to n - 1[^$]*0, 2"),
    ("path,label,class_name\notter/0.png,00,a\notter/1.png,1,b\n", "must be 0 to n - 1"),
    ("path,label,class_name\notter/0.png,0,a\notter/1.png,0,b\n", "line 3: label '0' has two names"),
    ("path,label,class_name\notter/0.png,x,a\notter/1.png,y,A\n", "too few images"),
    ("path,label,class_name\notter/0.png,x,a\notter/1.png,y,\n", "line 3: an empty class_name"),
    ("path,label,split\notter/0.png,x,train\notter/1.png,y,\n", "line 3: an empty split[^$]*1 of 2 lines"),
    ("path,label,split\notter/0.png,x,train\notter/1.png,y,tset\n", "line 3: unknown split 'tset'[^$]*'test'"),
    ("path,label,split\notter/0.png,x,val\notter/1.png,y,test\n", "no line is in train"),
    ("path,label,split\notter/0.png,a b,train\notter/1.png,A_b,test\n", "two classes have the same name"),
]


@pytest.mark.parametrize(("content", "message"), CSV_MISTAKES)
def test_csv_mistakes(content: str, message: str, photos: Path) -> None:
    (photos / "x.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_task(photos / "x.csv")


JSON_MISTAKES = [
    ('{"path": "otter/0.png", "label": "otter"}\n{"path"\n', r"x\.jsonl, line 2: not JSON"),
    ('["otter/0.png"]\n', "line 1: not an object"),
    ('{"path": "otter/0.png"}\n', "line 1: no label"),
    ('{"path": "otter/0.png", "label": "a", "lable": 1}\n', "unknown column 'lable'[^$]*'label'"),
    ('{"path": 3, "label": "a"}\n', "line 1: path is not a text"),
    ('{"path": "otter/0.png", "label": true}\n', "line 1: label is not a text"),
    ('{"path": "otter/0.png", "label": null}\n', "line 1: an empty label"),
    ('{"path": "otter/\\udcff.png", "label": "a"}\n{"path": "b", "label": "b"}\n', "line 1: .* not UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), JSON_MISTAKES)
def test_json_mistakes(content: str, message: str, photos: Path) -> None:
    (photos / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        load_task(photos / "x.jsonl")


def test_files_of_no_known_kind(photos: Path) -> None:
    (photos / "x.csv").write_bytes("path,label\notter/0.png,otter\nö,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.csv, line 3: not UTF-8"):
        load_task(photos / "x.csv")
    with pytest.raises(DataError, match="neither a folder nor a list"):
        load_task(photos / "otter" / "0.png")
