"""Predictors and scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import rmadapter as ra
from rmadapter.backbones import Backbone
from rmadapter.data import Task
from rmadapter.errors import DataError
from rmadapter.prediction import find_images


def test_accuracy_is_counted_over_images_and_over_classes(few: Task, pictoclip: Backbone) -> None:
    split = few.test.only([0, 1, 2])
    uneven = type(split)(split.items[:20], split.classes)  # 16 images of one class, 4 of the next, none of the third
    predictor = ra.ZeroShot(pictoclip).predictor(split.classes)
    scores = ra.evaluate(predictor, uneven, batch_size=7)
    right = [predicted == label for predicted, label in zip(scores.predicted, uneven.labels, strict=True)]
    assert scores.accuracy == pytest.approx(100 * sum(right) / 20)
    assert scores.mean_class_accuracy == pytest.approx(100 * (sum(right[:16]) / 16 + sum(right[16:]) / 4) / 2)
    again = ra.evaluate(predictor, uneven, batch_size=20)
    assert again.predicted == scores.predicted and again.confidence == pytest.approx(scores.confidence, abs=1e-5)
    assert "20 images, 3 classes" in str(scores)


def test_the_classes_must_be_the_splits(few: Task, pictoclip: Backbone) -> None:
    predictor = ra.ZeroShot(pictoclip).predictor(few.classes[:3])
    with pytest.raises(DataError, match="classes are not those of"):
        ra.evaluate(predictor, few.test)
    with pytest.raises(DataError, match="has no test images"):
        ra.evaluate(predictor, few.test.only([]))


def test_harmonic_mean() -> None:
    assert ra.harmonic_mean(84.52, 77.36) == pytest.approx(80.78, abs=0.005)
    assert ra.harmonic_mean(0, 0) == 0


def test_predictions_of_files_and_images(photos: Path, pictoclip: Backbone) -> None:
    files = list(find_images([photos]))
    assert len(files) == 18 and files == sorted(files)
    predictor = ra.ZeroShot(pictoclip).predictor(["red panda", "otter"])
    predictions = predictor.predict(files, batch_size=5)
    assert [p.image for p in predictions] == [str(file) for file in files]
    for prediction in predictions:
        assert set(prediction.classes) == {"red panda", "otter"}
        assert prediction.probabilities[0] >= prediction.probabilities[1]
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
        assert prediction.label == prediction.classes[0] and prediction.label in str(prediction)
    opened = predictor.predict([Image.open(file) for file in files], top=1)
    assert [p.label for p in opened] == [p.label for p in predictions]
    assert [p.image for p in opened[:2]] == ["0", "1"]
    with pytest.raises(DataError, match="does not exist"):
        list(find_images([photos / "nowhere"]))
    with pytest.raises(DataError, match="has no images"):
        (photos / "none").mkdir()
        list(find_images([photos / "none"]))


def test_a_predictor_does_not_go_stale(few: Task, pictoclip: Backbone) -> None:
    method = ra.RMAdapter(pictoclip)
    predictor = method.predictor(few.classes)
    images = [item.picture.open() for item in few.val.items[:4]]
    before = predictor.probabilities(images)
    ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=2)
    assert torch.equal(predictor.probabilities(images), before)
    assert not torch.equal(method.predictor(few.classes).probabilities(images), before)
    assert predictor.method.backbone is pictoclip  # the frozen part is shared, not copied


@pytest.mark.parametrize("classes", [[], ["cat", "Cat"], ["cat", " "], ["red_panda", "red panda"]])
def test_class_lists_that_cannot_be_told_apart(classes: list[str], pictoclip: Backbone) -> None:
    with pytest.raises(DataError):
        ra.ZeroShot(pictoclip).predictor(classes)


def test_any_words_encode(pictoclip: Backbone) -> None:
    names = ["qwxz", "Überraschung", "小熊猫", "🦊", "a-b_c's 12"]
    predictor = ra.ZeroShot(pictoclip).predictor(names)
    assert torch.pdist(predictor.text).min() > 1e-3  # each is read as something of its own


def test_a_name_instead_of_a_list_is_refused(pictoclip: Backbone) -> None:
    with pytest.raises(DataError, match="a class list is needed"):
        ra.ZeroShot(pictoclip).predictor("otter")
    with pytest.raises(DataError, match="a list of images is needed"):
        ra.ZeroShot(pictoclip).predictor(["otter", "cat"]).predict("x.png")


def test_a_predictor_leaves_its_method_trainable(few: Task, pictoclip: Backbone) -> None:
    method = ra.RMAdapter(pictoclip)
    ra.Predictor(method, few.classes)
    assert all(parameter.requires_grad for parameter in method.parameters())


def test_broken_files_are_rows_where_that_is_asked_for(photos: Path, pictoclip: Backbone) -> None:
    (photos / "otter" / "3.png").write_bytes(b"broken")
    files = list(find_images([photos]))
    rows = list(ra.ZeroShot(pictoclip).predictor(["otter", "cat"]).stream(files, batch_size=4, skip_broken=True))
    assert [row.image for row in rows] == [str(file) for file in files]
    assert [row.error is not None for row in rows] == [str(file).endswith("otter/3.png") for file in files]
    assert "not a readable image" in str(rows[3])


def test_reading_ahead_changes_nothing_and_is_bounded(photos: Path, pictoclip: Backbone) -> None:
    predictor = ra.ZeroShot(pictoclip).predictor(["otter", "cat"])
    files = sorted(photos.rglob("*.png"))
    rows = {threads: list(predictor.stream(files, batch_size=4, threads=threads)) for threads in (0, 1, 3)}
    assert rows[0] == rows[1] == rows[3] and len(rows[0]) == len(files)
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield files[taken % len(files)]

    stream = predictor.stream(endless(), batch_size=4, threads=2)
    assert [next(stream).image for _ in range(9)] == [str(files[i % len(files)]) for i in range(1, 10)]
    assert taken < 100
    stream.close()


def test_the_first_broken_file_is_an_error(photos: Path, pictoclip: Backbone) -> None:
    (photos / "otter" / "3.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"3\.png"):
        ra.ZeroShot(pictoclip).predictor(["otter", "cat"]).predict(sorted(photos.rglob("*.png")))


def test_an_improbable_best_class_is_unknown(photos: Path, pictoclip: Backbone) -> None:
    predictor = ra.ZeroShot(pictoclip).predictor(["otter", "cat"])
    files = sorted(photos.rglob("*.png"))
    usual = predictor.predict(files)
    threshold = sorted(row.probabilities[0] for row in usual)[len(files) // 2]
    for row, before in zip(predictor.predict(files, reject=threshold), usual, strict=True):
        assert row.probabilities == before.probabilities and row.classes == before.classes
        assert row.label == (before.label if before.probabilities[0] >= threshold else "unknown")
