"""Commands as a user types them: results, files, messages, exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import rmadapter as ra
from rmadapter import __version__, provenance
from rmadapter.backbones import Backbone
from rmadapter.cli import cli
from rmadapter.data import Task
from rmadapter.methods import method_names
from typed import good, run

QUICK = ["--train.epochs", "2", "--shots", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task as files: six animals, exported as a user would have them."""
    from rmadapter.data.export import export_task

    task = ra.load_task("pictograms/animals")._only(range(6))
    return export_task(task, tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    good("train", "--data", folder, "--out", out, "--classes", "base", *QUICK)
    return out


def test_the_commands_give_the_numbers_of_the_python_interface(folder: Path, trained: Path, tmp_path: Path) -> None:
    task = ra.load_task(folder)
    base, novel = task.base(), task.novel()
    method = ra.RMAdapter(ra.load_backbone("pictoclip-s"))
    ra.fit(method, base.shots(2, seed=1), out=tmp_path / "api", epochs=2)
    for name in ("adapter_model.safetensors", "steps.jsonl"):
        assert (tmp_path / "api" / name).read_bytes() == (trained / name).read_bytes()
    for name, part in (("base", base), ("novel", novel)):
        expected = ra.evaluate(ra.load(tmp_path / "api").predictor(part.classes), part.test)
        found = json.loads(good("evaluate", trained, "--classes", name, "--json"))
        assert found["accuracy"] == expected.accuracy
        assert found["mean_class_accuracy"] == expected.mean_class_accuracy
    images = sorted((folder / "images" / "crab").glob("test_*.png"))
    expected_rows = ra.load(trained).predictor(novel.classes).predict(images)
    lines = good("predict", trained, folder / "images" / "crab", "--classes", ",".join(novel.classes), "--json")
    found_rows = {row["image"]: row for row in map(json.loads, lines.splitlines())}
    for row in expected_rows:
        assert found_rows[row.image]["classes"] == list(row.classes)
        assert found_rows[row.image]["probabilities"] == pytest.approx(list(row.probabilities), abs=1e-6)


def test_a_number_of_updates_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    text = good("train", "--data", folder, "--out", tmp_path / "run", "--shots", 8, "--train.updates", 7)
    assert text.startswith("6 steps")  # 48 images, 16 a step: two epochs are nearest
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"]["train"]["updates"] == 7 and record["fit"]["steps"] == 6
    assert "--train.updates" in good("train", "--help")


def test_what_a_run_folder_holds(trained: Path, folder: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["recipe"]["shots"] == 2 and record["recipe"]["train"]["epochs"] == 2
    assert record["versions"]["rmadapter"] == __version__ and record["machine"]["threads"] >= 1
    assert record["fit"]["steps"] > 0
    task = json.loads((trained / "task.json").read_text())
    assert task["data"] == str(folder.resolve()) and len(task["classes"]) == 6
    shots = json.loads((trained / "shots.json").read_text())
    assert len(shots["train"]) == 6 and len(shots["classes"]) == 3
    assert not (trained / "checkpoint.safetensors").exists()


def test_evaluate_prints_and_records(trained: Path) -> None:
    assert "accuracy" in good("evaluate", trained)
    food = ra.load_task("pictograms/food")
    assert f"{len(food.classes)} classes" in good("evaluate", trained, "--data", "pictograms/food")
    scores = json.loads((trained / "adapter_config.json").read_text())["scores"]
    assert scores.keys() >= {"pictograms/animals base", "pictograms/food all"}
    entry = scores["pictograms/food all"]
    assert entry["images"] == len(food.test) and "torch" in entry["versions"] and "device" in entry["machine"]


def test_predict_forms(trained: Path, folder: Path) -> None:
    image = next((folder / "images" / "crab").glob("*.png"))
    text = good("predict", trained, image, "--top", 2)
    assert text.startswith(f"{image}: ") and text.count("%") == 2
    rows = list(
        csv.reader(io.StringIO(good("predict", trained, image, folder / "images" / "tiger", "--csv", "--top", 1)))
    )
    assert rows[0] == ["image", "label", "error", "class_1", "probability_1"] and len(rows) == 2 + 48
    assert all(row[1] == row[3] and not row[2] for row in rows[1:])
    row = json.loads(good("predict", trained, image, "--json", "--reject", 1, "--top", 1))
    assert row["label"] == "unknown" and row["classes"] and row["error"] is None and 0 < row["probabilities"][0] < 1
    assert "unknown (" in good("predict", trained, image, "--reject", 1)
    result = run("predict", trained, image, "--json", "--csv")
    assert result.exit_code == 2 and "exclude each other" in result.stderr


def test_predict_takes_patterns_and_standard_input(trained: Path, folder: Path) -> None:
    crabs = sorted((folder / "images" / "crab").glob("*.png"))
    by_pattern = good("predict", trained, folder / "images" / "cr*" / "*.png", "--json")
    assert [json.loads(line)["image"] for line in by_pattern.splitlines()] == [str(path) for path in crabs]
    names = "".join(f"{path}\n" for path in crabs)
    result = CliRunner().invoke(cli, ["predict", str(trained), "-", "--json"], input=f"{names}\nnowhere.png\r\n")
    assert result.exit_code == 2 and f"1 of {len(crabs) + 1} images could not be read" in result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.stdout.startswith(by_pattern) and rows[-1]["error"] == "nowhere.png does not exist"
    assert rows[-1]["label"] is None
    for wrong, message in (("*.webp", "no file matches"), ("nowhere.png", "does not exist")):
        result = run("predict", trained, wrong)
        assert result.exit_code == 2 and message in result.stderr and not result.stdout


def test_predict_with_names_from_a_file(trained: Path, folder: Path, tmp_path: Path) -> None:
    image = next((folder / "images" / "crab").glob("*.png"))
    (tmp_path / "names.txt").write_text("otter\n\ncrab\n", encoding="utf-8")
    assert good("predict", trained, image, "--classes", f"@{tmp_path / 'names.txt'}") == good(
        "predict", trained, image, "--classes", "otter, crab"
    )
    for given, message in (("@nowhere", "not a readable list"), ("a,,b", "empty class name"), ("a,A", "same name")):
        result = run("predict", trained, image, "--classes", given)
        assert result.exit_code == 2 and message in result.stderr


def test_resume(folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", folder, "--out", tmp_path / "run", *QUICK]
    good(*arguments)
    before = (tmp_path / "run" / "adapter_model.safetensors").read_bytes()
    result = run(*arguments)
    assert result.exit_code == 2 and "not empty" in result.stderr
    assert "finished already" in good("train", "--out", tmp_path / "run", "--resume")
    assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == before
    result = run(*arguments, "--resume", "--method.rank", 4)
    assert result.exit_code == 2 and "another recipe" in result.stderr
    assert "given:   --method.rank was 32, and is 4 now\n" in result.stderr
    result = run("train", "--out", tmp_path / "run", "--resume", "--shots", 3, "--train.augment", "crop_flip")
    assert "given:   --shots was 2, and is 3 now; --train.augment was none, and is crop_flip now" in result.stderr
    assert result.exit_code == 2
    result = run("train", "--out", tmp_path / "run", "--resume", "--method", "coop")
    assert "given:   --method was rmadapter, and is coop now\n" in result.stderr and result.exit_code == 2


def test_a_resumed_run_says_what_was_not_as_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    good("train", "--data", folder, "--out", out, *QUICK)
    (out / "adapter_config.json").unlink()  # as if killed before its end
    machine = provenance.machine
    monkeypatch.setattr(provenance, "machine", lambda device: {**machine(device), "threads": 99})
    with pytest.warns(UserWarning, match=r"threads \d+ is now 99: the last bits may differ"):
        good("train", "--out", out, "--resume")
    (change,) = json.loads((out / "run.json").read_text())["resumed"]
    assert change.startswith("threads ") and change.endswith(" is now 99")


def test_an_interrupted_command_says_what_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a run is there, nothing can be resumed."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", "--data", folder, "--out", tmp_path / "run", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr("rmadapter.run.load_backbone", stop)
        result = run(*arguments)
    assert result.exit_code == 130 and "go on with: the same command" in result.stderr
    monkeypatch.setattr("rmadapter.run.fit", stop)
    result = run(*arguments)
    assert result.exit_code == 130 and f"train --out {tmp_path / 'run'} --resume" in result.stderr


def test_resume_knows_the_run(folder: Path, tmp_path: Path) -> None:
    """Its method's options, and settings that it does not have since they came later."""
    good("train", "--data", folder, "--out", tmp_path / "run", "--method", "coop", *QUICK)
    result = run("train", "--out", tmp_path / "run", "--resume", "--method.length", 7)
    assert result.exit_code == 2 and "given:   --method.length was " in result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["recipe"]["method_settings"]["length"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert "finished already" in good("train", "--out", tmp_path / "run", "--resume")


def test_resume_takes_only_a_run(folder: Path, pictoclip: Backbone, few: Task, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").write_bytes(b"")
    ra.fit(ra.ZeroShot(pictoclip), few, tmp_path / "api", show_progress=False)
    before = sorted(tmp_path.rglob("*"))
    for name in ("nothing", "photos", "api"):
        result = run("train", "--out", tmp_path / name, "--resume")
        assert result.exit_code == 2 and "holds no run" in result.stderr
    for name in ("photos", "api"):
        result = run("train", "--out", tmp_path / name, "--resume", "--data", folder)
        assert result.exit_code == 2 and "not empty" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    good("train", "--out", tmp_path / "nothing", "--resume", "--data", folder, *QUICK)  # starts where there is none


def test_a_run_that_fails_before_its_first_step_leaves_no_trace(folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", folder, "--out", tmp_path / "run", "--device", "cpu", *QUICK]
    assert run(*arguments, "--train.precision", "fp16").exit_code == 2
    good(*arguments)


def test_data_that_moved(folder: Path, trained: Path, tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "run"
    shutil.copytree(folder, here)
    (here / "split.json").unlink()  # so that a fresh reading would split anew
    shutil.copytree(trained, copy)
    own = json.loads(good("evaluate", copy, "--json"))
    record = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**record, "data": str(tmp_path / "gone")}))
    result = run("evaluate", copy)
    assert result.exit_code == 2 and "name the folder where the data are now with --data" in " ".join(
        result.stderr.split()
    )
    assert json.loads(good("evaluate", copy, "--data", here, "--json")) == own
    next((here / "images" / "crab").glob("train_*.png")).unlink()
    result = run("evaluate", copy, "--data", here)
    assert result.exit_code == 2 and "of the 288 images that" in result.stderr


def test_resume_from_another_folder(
    folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    good("train", "--data", folder.name, "--out", tmp_path / "run", *QUICK)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "fit": None}))  # as if it had been interrupted
    (tmp_path / "run" / "adapter_model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    good("train", "--out", "run", "--resume")
    good("evaluate", "run")


@pytest.mark.parametrize("name", ["run.json", "task.json", "adapter_config.json"])
@pytest.mark.parametrize("content", ["{}", "[1]", "{"])
def test_damaged_records(name: str, content: str, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    result = run("evaluate", tmp_path / "run")
    assert result.exit_code == 2 and name in result.stderr and "Traceback" not in result.stderr


def test_lists() -> None:
    assert "pictoclip-s" in good("list", "backbones")
    assert "pictograms/animals" in good("list", "tasks") and "classes" in good("list", "tasks")
    assert "rmadapter/pictograms" in good("list", "recipes")
    assert "1, 2, 4, 8, 16 shots" in good("list", "protocols")


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        ("pictoclip-s", {"mma": "71,040", "coop": "512", "linear_probe": "129 a class", "transmiter": "591,616"}),
        ("ViT-B-16", {"mma": "674,560", "coop": "2,048", "linear_probe": "513 a class", "transmiter": "9,444,352"}),
    ],
)
def test_methods_are_listed_with_seams_sizes_sources_and_quoted_scores(backbone: str, counts: dict[str, str]) -> None:
    head, *lines, note = good("list", "methods", "--backbone", backbone).splitlines()
    assert backbone in head and "measured" in note
    rows = {line.split()[0]: re.split(" {2,}", line) for line in lines}
    assert tuple(rows) == method_names()
    assert {name: row[2] for name, row in rows.items() if name in counts} == counts
    assert rows["zero_shot"][2] == "0"
    assert {name: rows[name][1] for name in ("coprompt", "mma", "zero_shot")} == {
        "coprompt": "tokens before head",
        "mma": "beside",
        "zero_shot": "–",
    }
    assert rows["maple"][3:] == ["Khattak et al., CVPR 2023", "82.28", "75.14", "78.55"]
    assert rows["clip_adapter"][4:] == ["–", "–", "–"]


def test_only_methods_are_counted_on_a_backbone() -> None:
    result = run("list", "tasks", "--backbone", "ViT-B-16")
    assert result.exit_code == 2 and "--backbone belongs to" in result.stderr


def test_help_shows_every_setting_with_its_default() -> None:
    text = " ".join(good("train", "--help").split())
    for setting in ra.RMAdapter.Settings.model_fields:
        assert f"--method.{setting.replace('_', '-')}" in text
    for setting in set(ra.TrainSettings.model_fields) - {"seed"}:
        assert f"--train.{setting.replace('_', '-')}" in text
    assert "[pictoclip-s]" in text
    large = " ".join(good("train", "--backbone", "ViT-B-16", "--help").split())
    assert "block's? [0.001]" in large and "block's? [0.001]" not in text
    assert "--method.rank" not in good("train", "--method", "zero_shot", "--help")


def test_export_writes_what_train_reads(tmp_path: Path) -> None:
    good("tasks", "export", "pictograms/plants", tmp_path / "plants")
    plants = ra.load_task("pictograms/plants")
    images = len(plants.train) + len(plants.val) + len(plants.test)
    assert len(list((tmp_path / "plants").rglob("*.png"))) == images
    result = run("tasks", "export", "pictograms/plants", tmp_path / "plants")
    assert result.exit_code == 2 and "not empty" in result.stderr


def test_a_tracebacks_is_shown_on_request(tmp_path: Path) -> None:
    result = run("--debug", "evaluate", tmp_path)
    assert isinstance(result.exception, ra.UserError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere", "--out", "OUT"], "there is no task, no folder and no file 'nowhere'"),
        (["train", "--method", "rmadaptr", "--out", "OUT"], "did you mean 'rmadapter'?"),
        (["train", "--method.rnak", "3", "--out", "OUT"], "--method.rank"),
        (["train", "--method.rank", "-3", "--out", "OUT"], "rank is not valid"),
        (["train", "--train.lr", "fast", "--out", "OUT"], "lr is not valid"),
        (["train", "--train.lr", "inf", "--out", "OUT"], "lr is not valid"),
        (["train", "--seed", "9" * 30, "--out", "OUT"], "seed is not valid"),
        (["train", "--recipe", "rmadapter/pictogram", "--out", "OUT"], "did you mean 'rmadapter/pictograms'?"),
        (["train", "--backbone", "ViT-B-61", "--out", "OUT"], "did you mean 'ViT-B-16'?"),
        (["train", "--template", "a photo", "--out", "OUT"], "exactly one {}"),
        (["train", "--device", "cuda:9", "--out", "OUT"], "this machine has no device"),
        (["train", "--device", "cpu:foo", "--out", "OUT"], "this machine has no device"),
        (["train", "--device", "cpu:", "--out", "OUT"], "this machine has no device"),
        (["bench", "--skip-broken", "base-to-nvel", "--out", "OUT"], "did you mean 'base-to-novel'"),
        (["train"], "Missing option '--out'"),
        (["evaluate", "OUT"], "holds no run"),
        (["predict", "OUT", "x.png"], "does not exist"),
        (["lst"], "No such command 'lst'"),
        (["list", "methds"], "is not one of"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_to_do(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*[str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr


def test_prediction_mistakes(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (3, 3)).save(tmp_path / "good.png")
    result = run("predict", trained, tmp_path / "broken.png", tmp_path / "good.png")
    assert result.exit_code == 2 and "1 of 2 images could not be read" in result.stderr
    first, second = result.stdout.splitlines()
    assert "broken.png is not a readable image" in first and "%" in second
    result = run("predict", trained, tmp_path / "good.png", "--classes", "cat,cat")
    assert result.exit_code == 2 and "same name" in result.stderr


def test_the_demo(tmp_path: Path) -> None:
    """The main job: RMAdapter learns the base classes, and the balance with the novel ones is better than before."""
    text = good("demo", "--out", tmp_path / "demo")
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["rmadapter"]["base"] >= summary["zero_shot"]["base"] + 5
    assert summary["rmadapter"]["hm"] > summary["zero_shot"]["hm"]
    for name in ("zero_shot", "rmadapter"):
        scores = summary[name]
        assert scores["hm"] == pytest.approx(ra.harmonic_mean(scores["base"], scores["novel"]))
        assert f"{scores['base']:.1f}" in text
    with Image.open(tmp_path / "demo" / "contact_sheet.png") as sheet:
        colors = {color: count for count, color in sheet.convert("RGB").getcolors(1 << 24) or []}
        assert colors[26, 127, 55] > 20 and colors[192, 38, 45] > 20  # some right in green, some wrong in red
    assert ra.load(tmp_path / "demo" / "run").name == "rmadapter"
