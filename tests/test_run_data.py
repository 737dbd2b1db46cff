"""Runs on a user's own data: lists from training to another place, too few images, broken ones."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import rmadapter as ra
from rmadapter import run as running
from rmadapter.calibration import NoTemperatureError
from rmadapter.data.check import find_broken, leave_out
from rmadapter.data.task import Task
from rmadapter.errors import DataError
from rmadapter.files import LOCK, locked
from rmadapter.recipe import resolve
from typed import run as command

QUICK = {"backbone": "pictoclip-s", "shots": 2, "train": {"epochs": 1, "warmup_epochs": 0}}


def listed(
    photos: Path, name: str = "photos.csv", classes: tuple[str, ...] = ("otter", "red_panda", "tree frog")
) -> Path:
    file = photos / name
    rows = [f"{c}/{i}.png,{c},{'train' if i < 3 else 'test'}" for c in classes for i in range(6)]
    file.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return file


def train(data: Path, out: Path, **changes: object) -> None:
    running.train(resolve(None, {"data": str(data), **QUICK, **changes}), out, show_progress=False)


def test_a_list_from_training_to_another_place(photos: Path, tmp_path: Path) -> None:
    file, out = listed(photos), tmp_path / "run"
    train(file, out)
    record = json.loads((out / "task.json").read_text())
    assert record["data"] == str(photos.resolve()) and record["task"] == "photos"
    assert record["note"].endswith("split as listed: 9 training, 0 validation and 9 test images")
    own = json.loads(command("evaluate", out, "--json").stdout)
    assert own["images"] == 9
    assert "otter" in command("predict", out, photos / "otter" / "0.png", "--top", 3).stdout
    shutil.move(photos, tmp_path / "moved")
    result = command("evaluate", out)
    assert result.exit_code == 2 and "with --data" in " ".join(result.stderr.split())
    moved = tmp_path / "moved"
    for place in (moved, moved / "photos.csv"):
        task, is_own = running.task_of(out, str(place))
        assert is_own and task.manifest().test == running.Manifest.read(out / "task.json", DataError).test
        assert json.loads(command("evaluate", out, "--data", place, "--json").stdout)["accuracy"] == own["accuracy"]


def test_a_list_never_tests_on_what_was_learned(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(listed(photos), out)
    text = (photos / "photos.csv").read_text()
    swapped = text.replace("train", "?").replace("test", "train").replace("?", "test").replace(",otter", ",sea otter")
    (photos / "swapped.csv").write_text(swapped)
    with pytest.raises(DataError, match=r"tests on 9 images that .* learned from"):
        running.task_of(out, str(photos / "swapped.csv"))
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    lines = swapped.splitlines()
    (elsewhere / "x.csv").write_text("\n".join([lines[0], *(f"{photos}/{line}" for line in lines[1:])]))
    with pytest.raises(DataError, match=r"tests on 9 images that .* learned from"):
        running.task_of(out, str(elsewhere / "x.csv"))
    (photos / "coarse.csv").write_text(text.replace(",otter", ",water animal"))
    task, own = running.task_of(out, str(photos / "coarse.csv"))
    assert not own and "water animal" in task.classes and len(task.test) == 9
    (photos / "more.csv").write_text(text + "loose.png,otter,test\n")
    Image.new("RGB", (4, 4)).save(photos / "loose.png")
    task, own = running.task_of(out, str(photos / "more.csv"))
    assert own and len(task.test) == 9, "what was added since changes nothing"


def test_other_photos_of_the_same_names_are_other_data(photos: Path, tmp_path: Path) -> None:
    """Cameras count from 0: same names, other files."""
    out = tmp_path / "run"
    train(photos, out)
    assert len(running.Manifest.read(out / "task.json", DataError).sizes or ()) == 18
    other = tmp_path / "other"
    for folder in (path for path in photos.iterdir() if path.is_dir()):
        (other / folder.name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40 + i, 30), (20 * i, 90, 30)).save(other / folder.name / f"{i}.png")
    task, own = running.task_of(out, str(other))
    assert not own and len(task.train) + len(task.val) + len(task.test) == 24
    shutil.copytree(photos, tmp_path / "copy")
    assert running.task_of(out, str(tmp_path / "copy"))[1]
    shutil.copy(photos / "otter" / "0.png", other / "otter" / "0.png")
    for lost in (False, True):  # one of them is no reason to take all others for lost
        with pytest.raises(DataError, match="holds 1 of the 18 images"):
            running.task_of(out, str(other), lost=lost)
    (photos / "otter" / "1.png").write_bytes((photos / "otter" / "2.png").read_bytes())
    with pytest.warns(UserWarning, match=r"not as large as when they were split: 1, such as otter/1.png"):
        assert running.task_of(out, str(photos))[1]  # at home a name is enough


@pytest.mark.parametrize("absolute", [True, False])
def test_names_that_lead_out_of_a_folder_make_no_other_folder_the_runs_own(
    absolute: bool, photos: Path, tmp_path: Path
) -> None:
    lists, out = tmp_path / "lists", tmp_path / "run"
    lists.mkdir()
    text, prefix = listed(photos).read_text().splitlines(), photos if absolute else f"../{photos.name}"
    (lists / "x.csv").write_text("\n".join([text[0], *(f"{prefix}/{line}" for line in text[1:])]))
    train(lists / "x.csv", out)
    other = tmp_path / "other"
    for name in ("ant", "bee"):
        (other / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (40, 30), (20 * i, 90, 30)).save(other / name / f"{i}.png")
    task, own = running.task_of(out, str(other))
    assert not own and task.classes == ("ant", "bee")
    (tmp_path / "again").mkdir()
    shutil.copy(lists / "x.csv", tmp_path / "again")
    assert running.task_of(out, str(tmp_path / "again" / "x.csv"))[1], "the list names them, wherever it lies"


def test_a_run_whose_photos_have_moved_goes_on(photos: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(KeyboardInterrupt):
        stopped(photos, out)
    shutil.move(photos, moved)
    result = command("train", "--out", out, "--resume")
    assert result.exit_code == 2 and "with --data" in " ".join(result.stderr.split())
    other = tmp_path / "other"
    for name in ("ant", "bee"):
        shutil.copytree(moved / "otter", other / name)
    result = command("train", "--out", out, "--resume", "--data", other)
    assert result.exit_code == 2 and "--data was" in " ".join(result.stderr.split())
    assert command("train", "--out", out, "--resume", "--data", moved).exit_code == 0
    assert json.loads(command("evaluate", out, "--json").stdout)["images"] > 0
    assert "finished already" in command("train", "--out", out, "--resume", "--data", moved).stdout


def stopped(data: Path, out: Path) -> None:
    """A run that is interrupted before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "fit", interrupted)
        train(data, out)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_two_processes_do_not_train_into_one_folder(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        stopped(photos, out)
    with locked(out / LOCK):
        result = command("train", "--out", out, "--resume")
    assert result.exit_code == 2 and "another process trains into" in result.stderr
    assert command("train", "--out", out, "--resume").exit_code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / LOCK).touch()  # a mistake was found before anything was learned
    train(photos, empty)


def test_notes_for_who_has_few_photos(photos: Path, tmp_path: Path) -> None:
    result = command("train", "--data", photos, "--out", tmp_path / "run", "--train.epochs", 1, "--shots", 2)
    assert "note: pictoclip-s has seen pictograms alone" in result.stderr
    assert "note: so few steps may change little; train for longer by --train.updates 200" in result.stderr
    result = command("evaluate", tmp_path / "run")
    assert "note:" not in result.stderr + result.stdout


def test_a_folder_of_learned_images_under_other_names(photos: Path, tmp_path: Path) -> None:
    """Named from the folder above in training; a fresh split of the folder itself would test on some of them."""
    rows = [f"photos/{c}/{i}.png,{c},{'train' if i < 4 else 'test'}" for c in ("otter", "red_panda") for i in range(6)]
    (photos.parent / "list.csv").write_text(
        "\n".join(["path,label,split", *rows]).replace("photos/", f"{photos.name}/")
    )
    out = tmp_path / "run"
    train(photos.parent / "list.csv", out)
    with pytest.raises(DataError, match=r"tests on \d+ images that .* learned from"):
        running.task_of(out, str(photos))


def test_classes_with_fewer_images_than_shots_are_said(photos: Path, tmp_path: Path) -> None:
    (photos / "otter" / "0.png").unlink()
    (photos / "otter" / "1.png").unlink()
    with pytest.warns(UserWarning, match=r"3 classes have fewer than 5 training images \(fewest: otter, 2\): all"):
        train(photos, tmp_path / "run", shots=5)
    said = "; 3 classes have fewer than 5 training images (fewest: otter, 2)"
    assert json.loads((tmp_path / "run" / "task.json").read_text())["note"].endswith(said)
    assert json.loads((tmp_path / "run" / "shots.json").read_text())["note"].count(said) == 1
    with pytest.warns(UserWarning, match=r"^1 class has fewer than 3 training images \(fewest: otter, 2\)"):
        train(photos, tmp_path / "base", shots=3, classes="base")


def test_scarce_classes(few: Task) -> None:
    assert few.scarce(24) == "" and few.shots(24, seed=1).note == few.note
    assert few.scarce(25).startswith("6 classes have fewer than 25") and few.base().scarce(25).startswith("3 classes")
    assert few.shots(25, seed=1).note == f"{few.note}; {few.scarce(25)}"
    assert few.shots(25, seed=1).train == few.train


@pytest.fixture
def damaged(photos: Path) -> Path:
    """Three images of the folder cannot be read."""
    (photos / "otter" / "0.png").write_bytes(b"")
    (photos / "otter" / "5.png").write_text("text")
    whole = (photos / "red_panda" / "3.png").read_bytes()
    (photos / "red_panda" / "3.png").write_bytes(whole[: len(whole) - 30])
    return photos


def test_skip_broken(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.warns(UserWarning) as said:
        train(damaged, out, skip_broken=True)
    assert sorted(str(one.message).split(" is ")[0] for one in said) == [
        f"left out: {name}" for name in ("otter/0.png", "otter/5.png", "red_panda/3.png")
    ]
    rows = {row["path"]: row["reason"] for row in csv.DictReader((out / "skipped.csv").read_text().splitlines())}
    assert rows.keys() == {"otter/0.png", "otter/5.png", "red_panda/3.png"}
    assert rows["otter/0.png"] == "is empty: it has 0 bytes"
    assert (
        rows["otter/5.png"]
        == "is not a readable image: its content is not JPEG, PNG, WEBP, BMP, GIF, TIFF, PPM or AVIF"
    )
    task = json.loads((out / "task.json").read_text())
    kept = {name for part in ("train", "val", "test") for name, _ in task[part]}
    assert len(kept) == 15 and not kept & rows.keys()
    assert task["note"].endswith("; left out: 3 images that cannot be read")
    assert command("evaluate", out).exit_code == 0, "on what is left"
    before = {name: (out / name).read_bytes() for name in ("task.json", "skipped.csv", "adapter_model.safetensors")}
    for name in before:  # as if it had been killed while it wrote its first files
        (out / name).unlink()
    with pytest.warns(UserWarning, match="left out"):
        recipe = running.read_run(out).recipe
        running.train(recipe, out, resume=True, show_progress=False)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_nothing_is_checked_unless_asked_for(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a readable image|is empty"):
        train(damaged, tmp_path / "run", shots=3)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {LOCK}, (
        "the folder is free for the corrected command"
    )
    with pytest.warns(UserWarning, match="left out"):
        train(damaged, tmp_path / "run", skip_broken=True)


def test_a_class_without_readable_images(photos: Path) -> None:
    task = ra.load_task(photos)
    for item in task.test:
        if item.label == 1:
            (photos / item.picture.name).write_bytes(b"")
    with pytest.raises(DataError, match="class 'red panda' is left with no image to test on that can be read"):
        leave_out(task, find_broken(task.train, task.val, task.test))
    for index in range(6):
        (photos / "otter" / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"class 'otter' is left with no image to learn from[^$]*otter/\d.png is empty"):
        leave_out(task, find_broken(task.train, task.val, task.test))


def test_checking_counts_and_leaves_good_tasks_alone(photos: Path, few: Task) -> None:
    done: list[int] = []
    task = ra.load_task(photos)
    assert find_broken(task.train, task.val, task.test, progress=done.append) == [] and leave_out(task, []) is task
    assert sum(done) == 18
    assert find_broken(few.train, few.test) == []


def test_what_was_lost_since_training_may_be_left_out_of_scores(photos: Path, tmp_path: Path) -> None:
    train(photos, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "task.json").read_text())["test"]
    (photos / rows[0][0]).unlink()
    (photos / rows[1][0]).write_text("text")
    lost = command("evaluate", tmp_path / "run")
    assert lost.exit_code == 2 and "evaluate --skip-broken scores what is there" in lost.stderr
    with pytest.warns(UserWarning) as said:
        found = command("evaluate", tmp_path / "run", "--skip-broken", "--no-plots")
    assert found.exit_code == 0 and "left out: 2 images that are lost or cannot be read" in found.stdout
    assert f"left out: {rows[0][0]} does not exist" in {str(one.message) for one in said}
    (folder,) = (tmp_path / "run" / "evaluation").iterdir()
    listed = list(csv.DictReader((folder / "skipped.csv").read_text().splitlines()))
    assert {row["path"] for row in listed} == {rows[0][0], rows[1][0]}
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["left_out"] == 2 and scores["images"] == len(rows) - 2
    kept = json.loads((tmp_path / "run" / "adapter_config.json").read_text())["scores"]
    assert [one["left_out"] for one in kept.values()] == [2]
    photos.rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match="left out"), pytest.warns(UserWarning, match="not as large"):
        found = command("evaluate", tmp_path / "run", "--skip-broken", "--no-plots", "--data", tmp_path / "moved")
    assert found.exit_code == 0 and "left out: 2 images" in found.stdout


def test_a_run_without_test_images_fits_no_temperature(photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "train")
    (tmp_path / "photos").mkdir()
    (tmp_path / "train").rename(tmp_path / "photos" / "train")
    train(tmp_path / "photos", tmp_path / "run")
    found = command("evaluate", tmp_path / "run", "--temperature")
    assert found.exit_code == 2 and "photos has no test images" in found.stderr


def test_where_no_temperature_is_best_the_scores_are_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(photos, tmp_path / "run")

    def refuse(*_: object) -> float:
        raise NoTemperatureError("no temperature is best, since every image is named right", got="3 images")

    monkeypatch.setattr("rmadapter.scoring.fit_temperature", refuse)
    with pytest.warns(UserWarning, match=r"every image is named right \(3 images\): confidences stay as they are"):
        found = command("evaluate", tmp_path / "run", "--temperature", "--no-plots")
    assert found.exit_code == 0 and "photos" in found.stdout and "temperature 1" not in found.stdout


@pytest.mark.parametrize(
    "flag", [["--skip-broken"], ["--skip_broken"], ["--skip-broken=true"], ["--skip-broken", "true"]]
)
def test_the_flag(flag: list[str], damaged: Path, tmp_path: Path) -> None:
    quick = ["--train.epochs", 1, "--train.warmup-epochs", 0, "--shots", 2, "--split_seed", 1]
    with pytest.warns(UserWarning, match="left out"):
        result = command("train", *flag, "--data", damaged, "--out", tmp_path / "run", *quick)
    assert result.exit_code == 0, result.stderr
    assert "left out: 3 images that cannot be read" in result.stdout
    recipe = running.read_run(tmp_path / "run").recipe
    assert recipe.skip_broken and recipe.train.warmup_epochs == 0


def test_the_flag_off(damaged: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", damaged, "--out", tmp_path / "run", "--shots", 3, "--train.epochs", 1]
    for flag in ([], ["--skip-broken=false"]):
        result = command(*arguments, *flag)
        assert result.exit_code == 2 and "png is" in result.stderr
    result = command(*arguments, "--skip-broken=perhaps")
    assert result.exit_code == 2 and "skip_broken is not valid" in result.stderr
    assert "--skip-broken [true|false]" in command("train", "--help").stdout
