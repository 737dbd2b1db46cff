"""Plots and tables: pictures that can be opened and show what they should, CSV with numbers worked by hand."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from rmadapter import plots, report
from rmadapter.data.task import Item, Split
from rmadapter.errors import UserError
from rmadapter.evaluation import Scores

NAMES = ("cat", "dog", "$a_$b$ ^", "none")
# cat: 3 images, one taken for dog. dog: 2, both taken for the third class. The third: 1, right. The fourth has none.
SCORES = Scores((0, 0, 0, 1, 1, 2), (0, 1, 0, 2, 2, 2), (0.9, 0.8, 0.5, 0.6, 0.95, 1.0), 4)


@dataclass(frozen=True)
class Dot:
    """A picture that is not on disk."""

    name: str

    def open(self) -> Image.Image:
        return Image.new("RGB", (8, 8), "orange")


@pytest.fixture
def split() -> Split:
    return Split(
        tuple(Item(label, Dot(f"{place}.png")) for place, label in enumerate(SCORES.labels)), NAMES, "t", "test"
    )


def picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return image.convert("RGB")


def many(classes: int) -> Scores:
    labels = np.repeat(np.arange(classes), 3)
    predicted = labels.copy()
    predicted[::3] = (labels[::3] + 1) % classes
    return Scores(tuple(labels.tolist()), tuple(predicted.tolist()), (0.5,) * len(labels), classes)


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_tables(split: Split, tmp_path: Path) -> None:
    report.write_tables(SCORES, split, tmp_path)
    assert rows(tmp_path / "per_class.csv") == [
        ["class", "images", "right", "accuracy", "most_confused_with", "confused"],
        ["dog", "2", "0", "0.00", "$a_$b$ ^", "2"],
        ["cat", "3", "2", "66.67", "dog", "1"],
        ["$a_$b$ ^", "1", "1", "100.00", "", "0"],
        ["none", "0", "0", "", "", "0"],
    ]
    assert rows(tmp_path / "confusion.csv") == [
        ["true \\ predicted", *NAMES],
        ["cat", "2", "1", "0", "0"],
        ["dog", "0", "0", "2", "0"],
        ["$a_$b$ ^", "0", "0", "1", "0"],
        ["none", "0", "0", "0", "0"],
    ]
    predictions = rows(tmp_path / "predictions.csv")
    assert predictions[:3] == [
        ["image", "true", "predicted", "confidence"],
        ["0.png", "cat", "cat", "0.900000"],
        ["1.png", "cat", "dog", "0.800000"],
    ]
    assert len(predictions) == 7


def test_names_with_commas_and_quotes_survive(tmp_path: Path) -> None:
    name = 'a "b", c\nd'
    report.write_tables(Scores((0,), (0,), (1.0,), 1), Split((Item(0, Dot("x, y.png")),), (name,)), tmp_path)
    assert rows(tmp_path / "confusion.csv")[1] == [name, "1"]
    assert rows(tmp_path / "predictions.csv")[1][:2] == ["x, y.png", name]


def test_pictures(split: Split, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    report.write_pictures(SCORES, split, "a $ title_^", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(report.PICTURES)
    for name in ("confusion.png", "reliability.png"):
        image = picture(tmp_path / name)
        assert 300 < image.width < 2000 and 300 < image.height < 2000
    assert dict(mpl.rcParams) == before
    report.remove_pictures(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_sheet_shows_the_most_confident_mistakes_first(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[report.Shown] = []
    monkeypatch.setattr(report, "contact_sheet", lambda tiles, title, path: shown.extend(tiles))
    monkeypatch.setattr(report, "MISTAKES", 2)
    report.write_pictures(SCORES, split, "title", tmp_path)
    assert [(tile.true, tile.predicted, tile.confidence) for tile in shown] == [
        ("dog", NAMES[2], 0.95),
        ("cat", "dog", 0.8),
    ]


def test_no_mistakes_no_sheet(split: Split, tmp_path: Path) -> None:
    right = Scores(SCORES.labels, SCORES.labels, SCORES.confidence, 4)
    report.write_pictures(right, split, "title", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "reliability.png"}


@pytest.mark.parametrize("classes", [1, 2, plots.NAMED, plots.NAMED + 1, 400])
def test_any_number_of_classes_stays_a_picture(classes: int, tmp_path: Path) -> None:
    plots.confusion(many(classes), [f"class number {n}" for n in range(classes)], "title", tmp_path / "x.png")
    image = picture(tmp_path / "x.png")
    assert max(image.size) < 2600
    assert len(image.getcolors(1 << 20) or []) > 20  # something is drawn


def test_long_and_foreign_names(tmp_path: Path) -> None:
    names = ["a name that is far too long to stand beside a row, left", "小熊猫"]
    plots.confusion(many(2), names, "小熊猫", tmp_path / "x.png")  # a warning would be an error here
    assert max(picture(tmp_path / "x.png").size) < 1000
    short = plots._short(names[0])
    assert len(short) <= 24 and short.startswith("a name") and short.endswith("row, left")


def test_the_most_frequent_confusions_are_listed() -> None:
    assert plots._most_confused(SCORES, NAMES) == ["2 of 2  dog → $a_$b$ ^", "1 of 3  cat → dog"]
    assert len(plots._most_confused(many(400), [str(n) for n in range(400)])) == plots.LISTED


def test_cells_show_how_often_a_class_is_taken_for_another(tmp_path: Path) -> None:
    """Colours of the drawn cells: dark on a right diagonal, white where there is nothing."""
    plots.confusion(Scores((0, 1), (0, 1), (1.0, 1.0), 2), ["a", "b"], "", tmp_path / "right.png")
    plots.confusion(Scores((0, 1), (1, 0), (1.0, 1.0), 2), ["a", "b"], "", tmp_path / "wrong.png")
    right, wrong = (picture(tmp_path / name) for name in ("right.png", "wrong.png"))
    assert right.size == wrong.size
    x, y = right.width // 4, right.height // 4  # in the first row's first cell
    assert sum(right.getpixel((x, y))) < 300 < 700 < sum(wrong.getpixel((x, y)))  # type: ignore[arg-type]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.reliability(SCORES, "title", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*x\.png"):
        plots.reliability(SCORES, "title", tmp_path / "nowhere" / "x.png")
