"""rmadapter transfer, as typed: a run becomes a run of another backbone, which every command takes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import rmadapter as ra
from rmadapter.data.export import export_task
from rmadapter.methods.transmiter import TransMiter
from small import small_folder
from typed import good, run

QUICK = ["--method.dimension", "24", "--method.extraction-epochs", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six animals as files, a small CLIP as a folder, and a run on three of the animals."""
    place = tmp_path_factory.mktemp("transfer")
    export_task(ra.load_task("pictograms/animals")._only(range(6)), place / "animals")
    small_folder(place / "clip")
    good(
        *("train", "--data", place / "animals", "--classes", "base", "--shots", 2),
        *("--train.epochs", 1, "--out", place / "run"),
    )
    return place


@pytest.fixture(scope="module")
def carried(place: Path) -> tuple[Path, str]:
    out = place / "carried"
    return out, good("transfer", place / "run", "--to", place / "clip", "--out", out, *QUICK)


def test_what_is_said(place: Path, carried: tuple[Path, str]) -> None:
    out, said = carried
    assert "rmadapter on pictoclip-s carried over to" in said and "6 classes and 18 auxiliary names" in said
    assert "looked at 6 images, without their labels, names of novel classes known" in said
    assert "tabulate" in said and "extract" in said and "align" in said and "supervise" not in said
    assert (
        "million operations more; by emulated fine-tuning (EFT), which runs three models, 1" in said
        and f"rmadapter evaluate {out}" in said
    )


def test_the_new_run_is_one_like_any_other(place: Path, carried: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = carried
    method = ra.load(out)
    task = ra.load_task(place / "animals")
    assert isinstance(method, TransMiter) and method.classes == task.classes and method.backbone.shape.joint == 24
    for name, part in (("base", task.base()), ("novel", task.novel()), ("all", task)):
        found = json.loads(good("evaluate", out, "--classes", name, "--json", "--no-plots"))
        expected = ra.evaluate(method.predictor(part.classes, part.template), part.test)
        assert found["accuracy"] == expected.accuracy
    assert json.loads(good("evaluate", out, "--no-plots", "--json"))["classes"] == 3  # those of the teacher's run
    (table,) = (out / "evaluation").glob("*-novel/predictions.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert {row["true"] for row in rows} == set(task.novel().classes)
    image = next((place / "animals" / "images" / "crab").glob("*.png"))
    row = json.loads(good("predict", out, image, "--json"))
    assert set(row["classes"]) <= set(task.classes)
    assert json.loads(good("predict", out, image, "--json", "--classes", ",".join(task.classes[3:1:-1])))["label"]
    result = run("predict", out, image, "--classes", "unicorn,crab")
    assert result.exit_code == 2 and "knows the classes that it was trained on" in result.stderr
    assert "finished already" in good("train", "--out", out, "--resume")


def test_what_its_folder_holds(place: Path, carried: tuple[Path, str]) -> None:
    out, _ = carried
    record, about, config = (
        json.loads((out / name).read_text()) for name in ("run.json", "transfer.json", "adapter_config.json")
    )
    assert record["recipe"]["method"] == "transmiter" and record["recipe"]["backbone"] == str(place / "clip")
    assert record["recipe"]["classes"] == "base" and record["recipe"]["method_settings"]["novel"] == "known"
    assert record["fit"]["steps"] == 2 and record["fit"]["flops_added"] > 0 and set(record["fit"]["terms"]) == {"kl"}
    assert about["run"] == str(place / "run") and about["method"] == "rmadapter" and not about["plus"]
    assert about["backbone"]["name"] == "pictoclip-s" and len(about["adapter_sha256"]) == 64 and about["images"] == 6
    assert (
        len(config["settings"]["auxiliary"]) == 18
        and config["classes"] == json.loads((out / "task.json").read_text())["classes"]
    )
    assert (out / "shots.json").read_bytes() == (place / "run" / "shots.json").read_bytes()


def test_plus_and_blind(place: Path, carried: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "plus"
    options = ["--plus", "--train.epochs", 3, "--method.novel", "blind"]
    said = good("transfer", place / "run", "--to", place / "clip", "--out", out, *QUICK, *options)
    assert "with their labels, names of novel classes blind" in said and "supervise" in said
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"]["train"]["epochs"] == 3 and set(record["fit"]["terms"]) == {"kl", "ce"}
    assert record["fit"]["steps"] == 2 + 3
    for name in ("base", "novel"):
        assert json.loads(good("evaluate", out, "--classes", name, "--json", "--no-plots"))["classes"] == 3
    assert good("evaluate", out, "--classes", "novel", "--no-plots").startswith("pictograms/animals novel, blind: ")
    (scores,) = (out / "evaluation").glob("*-novel/scores.json")
    assert json.loads(scores.read_text())["novel_names"] == "blind"
    assert " base, names known: " in good("evaluate", carried[0], "--no-plots")
    assert "names" not in good("evaluate", place / "run", "--no-plots").partition(":")[0]
    result = run("evaluate", out, "--temperature")
    assert result.exit_code == 2 and "bound to more classes than it learned from" in result.stderr


def test_another_task_and_a_place_that_has_moved(place: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(place / "animals", tmp_path / "moved")
    good("transfer", place / "run", "--to", place / "clip", "--out", tmp_path / "own", *QUICK, "--data", moved)
    about = json.loads((tmp_path / "own" / "task.json").read_text())
    assert about["data"] == str(moved) and min(about["sizes"]) > 0  # so that other files are not taken for them
    assert json.loads((tmp_path / "own" / "run.json").read_text())["recipe"]["classes"] == "base"
    options = ["--data", "pictograms/plants", "--method.dimension", 40, "--method.extraction-epochs", 1]
    said = good("transfer", place / "run", "--to", place / "clip", "--out", tmp_path / "other", *options)
    assert "35 classes and 5 auxiliary names" in said and "names of novel classes" not in said
    assert json.loads((tmp_path / "other" / "run.json").read_text())["recipe"]["classes"] == "all"


def test_a_run_on_all_classes_can_be_calibrated(place: Path, tmp_path: Path) -> None:
    good("train", "--data", place / "animals", "--shots", 2, "--train.epochs", 1, "--out", tmp_path / "run")
    said = good("transfer", tmp_path / "run", "--to", "pictoclip-s", "--out", tmp_path / "out", *QUICK)
    assert "names of novel classes" not in said
    assert "fitted on" in good("evaluate", tmp_path / "out", "--temperature", "--no-plots")


def test_validation_items_stay_what_is_scored(place: Path, tmp_path: Path) -> None:
    for data, name in ((place / "animals", "own"), ("pictograms/plants", "shipped")):
        teacher, out = tmp_path / f"{name}-teacher", tmp_path / name
        good(
            *("train", "--data", data, "--classes", "base", "--shots", 1, "--test-on", "val", "--train.epochs", 1),
            *("--out", teacher),
        )
        good("transfer", teacher, "--to", place / "clip", "--out", out, "--method.dimension", 40, *QUICK[2:])
        assert json.loads((out / "run.json").read_text())["recipe"]["test_on"] == "val"
        assert "val" in good("evaluate", out, "--classes", "base", "--no-plots")


def test_a_teacher_that_knows_its_classes_alone(place: Path, tmp_path: Path) -> None:
    options = ["--method", "linear_probe", "--method.strength", 1, "--classes", "base", "--shots", 2]
    good("train", "--data", place / "animals", *options, "--out", tmp_path / "probe")
    command = ["transfer", tmp_path / "probe", "--to", place / "clip", "--out", tmp_path / "out", *QUICK]
    result = run(*command)
    assert result.exit_code == 2 and "--method.novel blind" in result.stderr
    assert "emulated fine-tuning (EFT)" in good(*command, "--method.novel", "blind")


def test_what_was_killed_is_carried_over_again_and_not_trained_on(
    place: Path, carried: tuple[Path, str], tmp_path: Path
) -> None:
    out, whole = shutil.copytree(carried[0], tmp_path / "killed"), carried[0] / "adapter_model.safetensors"
    (out / "adapter_config.json").unlink()
    (out / "adapter_model.safetensors").unlink()
    result = run("train", "--out", out, "--resume")
    assert result.exit_code == 2 and "give its rmadapter transfer again" in result.stderr
    good("transfer", place / "run", "--to", place / "clip", "--out", out, *QUICK)
    assert (out / "adapter_model.safetensors").read_bytes() == whole.read_bytes()
    result = run("transfer", place / "run", "--to", place / "clip", "--out", out, *QUICK)
    assert result.exit_code == 2 and "is not empty" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "ViT-B-61"], "did you mean 'ViT-B-16'"),
        (["--to", "CLIP", "--method.dimension", "4"], "6 classes do not fit into 4 logits"),
        (["--to", "CLIP", "--method.dimension", "1"], "dimension is not valid"),
        (["--to", "CLIP", "--method.dimension", "2000"], "too few auxiliary names"),
        (["--to", "CLIP", "--method.auxiliary", "nowhere.txt"], "nowhere.txt is not a readable list of names"),
        (["--to", "CLIP", "--method.ridge", "0"], "ridge is not valid"),
        (["--to", "CLIP", "--method.ridge-share", "-1"], "ridge_share is not valid"),
        (["--to", "CLIP", "--method.novel", "half"], "novel is not valid"),
        (["--to", "CLIP", "--method.rank", "3"], "--method.rank"),
        (["--to", "CLIP", "--plus", "--train.augment", "crop_flip"], "made without augmentation"),
        (["--to", "CLIP", "--data", "nowhere"], "there is no task, no folder and no file 'nowhere'"),
        ([], "Missing option '--to'"),
    ],
)
def test_mistakes(options: list[str], message: str, place: Path, tmp_path: Path) -> None:
    given = [str(place / "clip") if option == "CLIP" else option for option in options]
    result = run("transfer", place / "run", "--out", tmp_path / "out", *QUICK[2:], *given)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_folder_that_is_no_run_or_is_full(place: Path) -> None:
    result = run("transfer", place / "animals", "--to", place / "clip", "--out", place / "nothing")
    assert result.exit_code == 2 and "holds no run" in result.stderr
    result = run("transfer", place / "run", "--to", place / "clip", "--out", place / "run")
    assert result.exit_code == 2 and "is not empty" in result.stderr


def test_help_shows_the_settings_with_the_targets_defaults() -> None:
    small, large = (" ".join(good("transfer", "--to", to, "--help").split()) for to in ("pictoclip-s", "ViT-L-14"))
    assert "[256]" in small and "[1024]" in large and "[1024]" not in small
    for option in ("--method.ridge-share", "--method.novel", "--train.epochs", "--plus", "--pretrained", "--data"):
        assert option in small
