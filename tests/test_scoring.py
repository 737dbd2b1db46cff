"""Scores of logits, and what evaluating a run writes, fits and records."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import rmadapter as ra
from rmadapter.backbones import Backbone
from rmadapter.cli import cli
from rmadapter.data import Task
from rmadapter.errors import UserError
from rmadapter.evaluation import logits, score
from rmadapter.prediction import predict_run
from rmadapter.recipe import resolve
from rmadapter.run import train
from rmadapter.scoring import evaluate_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, few: Task) -> Path:
    """A short run on a folder of six animals, on its base classes."""
    from rmadapter.data.export import export_task

    root = tmp_path_factory.mktemp("run")
    data = export_task(few, root / "animals")
    changes = {"data": str(data), "classes": "base", "shots": 2, "train": {"epochs": 2}}
    train(resolve(None, changes), root / "run", device="cpu", show_progress=False)
    return root / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_scores_of_logits_worked_by_hand() -> None:
    # Three classes, the third without images. p of (ln 3, 0, 0) is 3/5, 1/5, 1/5; of (0, ln 8, 0) 1/10, 8/10, 1/10.
    a, b = [np.log(3), 0.0, 0.0], [0.0, np.log(8), 0.0]
    scores = score(torch.tensor([a, a, b, b, b]), [0, 1, 1, 1, 0])
    assert scores.predicted == (0, 0, 1, 1, 1) and scores.confidence == pytest.approx([0.6, 0.6, 0.8, 0.8, 0.8])
    assert scores.accuracy == pytest.approx(60)
    assert scores.class_images.tolist() == [2, 3, 0] and scores.class_right.tolist() == [1, 2, 0]
    assert scores.class_accuracy == pytest.approx([50, 200 / 3, np.nan], nan_ok=True)
    assert scores.mean_class_accuracy == pytest.approx((50 + 200 / 3) / 2)
    assert scores.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert scores.bins.images.sum() == 5 and len(scores.bins.images) == 15
    assert scores.ece == pytest.approx(100 * (2 / 5 * abs(0.5 - 0.6) + 3 / 5 * abs(2 / 3 - 0.8)), abs=1e-4)
    assert scores.mean_confidence == pytest.approx(72)
    summary = json.loads(json.dumps(scores.summary()))
    assert summary["ece"] == scores.ece and summary["images"] == 5 and summary["classes"] == 3
    # At T = 1/2 logits double: 9/11 and 64/66.
    sharper = score(torch.tensor([a, a, b, b, b]), [0, 1, 1, 1, 0], temperature=0.5)
    assert sharper.confidence == pytest.approx([9 / 11, 9 / 11, 64 / 66, 64 / 66, 64 / 66])
    assert sharper.predicted == scores.predicted and sharper.temperature == 0.5


def test_a_temperature_changes_confidences_and_no_prediction(few: Task, pictoclip: Backbone) -> None:
    method = ra.ZeroShot(pictoclip)
    plain = ra.evaluate(method.predictor(few.classes), few.val)
    method.temperature, method.classes = 3.0, few.classes
    predictor = method.predictor(few.classes)
    warm = ra.evaluate(predictor, few.val)
    assert warm.predicted == plain.predicted and warm.temperature == 3
    assert max(warm.confidence) < max(plain.confidence)
    expected = (logits(predictor, few.val) / 3).softmax(dim=-1).amax(dim=-1)
    assert warm.confidence == pytest.approx(expected.tolist())
    images = [item.picture.open() for item in few.val.items[:3]]
    assert predictor.probabilities(images).amax(dim=-1).tolist() == pytest.approx(warm.confidence[:3], abs=1e-5)


def test_an_evaluation_leaves_what_explains_it(copy: Path) -> None:
    found = evaluate_run(copy, device="cpu")
    assert found.folder == copy / "evaluation" / "pictograms-animals-base"
    names = {"scores.json", "per_class.csv", "confusion.csv", "predictions.csv"}
    pictures = {"confusion.png", "reliability.png"} | ({"mistakes.png"} if found.scores.accuracy < 100 else set())
    assert {path.name for path in found.folder.iterdir()} == names | pictures
    content = json.loads((found.folder / "scores.json").read_text())
    recorded = json.loads((copy / "adapter_config.json").read_text())["scores"]["pictograms/animals base"]
    assert content["accuracy"] == recorded["accuracy"] == found.scores.accuracy
    assert content["ece"] == recorded["ece"] == found.scores.ece and content["temperature"] == 1
    assert content["split_sha256"] == found.task.sha256() and content["seed"] == 1 and "torch" in content["versions"]
    with (found.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [item.picture.name for item in found.task.test]
    assert sum(row["true"] == row["predicted"] for row in rows) == found.scores.right.sum()
    evaluate_run(copy, plots=False, device="cpu")  # pictures of earlier scores would lie beside new ones
    assert {path.name for path in found.folder.iterdir()} == names


def test_scores_of_validation_items_are_called_so(tmp_path: Path) -> None:
    changes = {"data": "pictograms/animals", "classes": "base", "shots": 1, "test_on": "val"}
    train(resolve(None, {**changes, "method": {"name": "zero_shot"}}), tmp_path / "run", device="cpu")
    found = evaluate_run(tmp_path / "run", device="cpu", plots=False)
    assert found.title == "pictograms/animals base, val"
    assert json.loads((found.folder / "scores.json").read_text())["split"] == "val"
    assert [*json.loads((tmp_path / "run" / "adapter_config.json").read_text())["scores"]] == [found.title]
    other = evaluate_run(tmp_path / "run", data="pictograms/food", device="cpu", plots=False)
    assert other.title == "pictograms/food all" and other.split == "test"


def test_a_temperature_is_fitted_on_validation_items_and_used_from_then_on(
    copy: Path, few: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spy(predictor: ra.Predictor, split: object, **options: object) -> torch.Tensor:
        seen.append(f"{split.part} {len(split.classes)}")  # type: ignore[attr-defined]
        return logits(predictor, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("rmadapter.scoring.logits", spy)
    before = evaluate_run(copy, plots=False, device="cpu")
    fitted = evaluate_run(copy, temperature=True, plots=False, device="cpu")
    assert seen == ["test 3", "val 3", "test 3"]
    assert fitted.fitted_on == len(few.base().val)
    temperature = json.loads((copy / "adapter_config.json").read_text())["temperature"]
    assert temperature == fitted.scores.temperature == ra.load(copy).temperature != 1
    after = evaluate_run(copy, plots=False, device="cpu")
    assert after.scores.predicted == before.scores.predicted and after.scores.temperature == temperature
    assert after.ece_without == pytest.approx(before.scores.ece) and after.fitted_on is None
    assert after.scores.ece != before.scores.ece
    novel = evaluate_run(copy, classes="novel", plots=False, device="cpu")
    assert novel.scores.temperature == 1 and novel.ece_without is None  # it was not fitted on these classes
    # Fitting again starts from the raw logits, so it gives the same.
    assert evaluate_run(copy, temperature=True, plots=False, device="cpu").scores.temperature == temperature


def test_predictions_of_a_run_use_its_temperature(copy: Path, few: Task, tmp_path: Path) -> None:
    few.test.items[0].picture.open().save(tmp_path / "x.png")
    _, rows = predict_run(copy, [str(tmp_path / "x.png")], device="cpu")
    before = next(rows)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**config, "temperature": 5.0}))
    _, rows = predict_run(copy, [str(tmp_path / "x.png")], device="cpu")
    after = next(rows)
    raised = np.array(before.probabilities) ** (1 / 5)
    assert after.classes == before.classes
    assert after.probabilities == pytest.approx((raised / raised.sum()).tolist(), abs=1e-5)
    assert ra.save(ra.load(copy), tmp_path) and ra.load(tmp_path).temperature == 5


def test_no_validation_items_no_temperature(copy: Path) -> None:
    task = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**task, "val": []}))
    with pytest.raises(UserError, match=r"has not as many sizes as images"):
        evaluate_run(copy, device="cpu")
    (copy / "task.json").write_text(json.dumps({**task, "val": [], "sizes": None}))
    with pytest.raises(UserError, match=r"no validation items.*never fitted on test items"):
        evaluate_run(copy, temperature=True, device="cpu")
    assert json.loads((copy / "adapter_config.json").read_text())["temperature"] is None
    assert not (copy / "evaluation").exists()


def test_an_evaluation_that_cannot_be_written(copy: Path) -> None:
    (copy / "evaluation").write_text("in the way")
    with pytest.raises(UserError, match="cannot use"):
        evaluate_run(copy, device="cpu")


def test_what_the_command_prints(copy: Path) -> None:
    def typed(*extra: str) -> str:
        result = CliRunner().invoke(cli, ["evaluate", str(copy), "--device", "cpu", "--no-plots", *extra])
        assert result.exit_code == 0, result.output
        return result.stdout

    text = typed()
    assert "mean class accuracy" in text and "ECE" in text and "temperature" not in text
    assert text.count("% of 16") == 3 and str(copy / "evaluation" / "pictograms-animals-base") in text
    assert "fitted on 24 validation images: ECE" in typed("--temperature")
    assert "fitted earlier: ECE" in typed() and "fitted" not in typed("--classes", "novel")
    found = json.loads(typed("--json"))
    assert found["ece"] != found["ece_without_temperature"] and found["temperature"] != 1 and "fitted_on" not in found


def test_another_folder_is_scored_under_the_runs_template_and_beside_its_own_scores(
    copy: Path, few: Task, photos: Path
) -> None:
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "recipe": {**record["recipe"], "template": "a toy {}."}}))
    found = [evaluate_run(copy, data=str(place), plots=False, device="cpu") for place in (photos, _moved(photos))]
    assert [evaluation.task.template for evaluation in found] == ["a toy {}."] * 2
    assert len({evaluation.folder for evaluation in found}) == len({evaluation.title for evaluation in found}) == 2


def _moved(photos: Path) -> Path:
    """A folder of the same name with other images."""
    other = photos.parent / "other" / photos.name
    shutil.copytree(photos, other)
    (other / "otter" / "0.png").rename(other / "otter" / "9.png")
    return other
