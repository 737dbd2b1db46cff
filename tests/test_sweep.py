"""Sweeps: every run once, failures recorded, nothing computed twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rmadapter as ra
from rmadapter import run as runs
from rmadapter import sweep
from rmadapter.errors import DataError, SettingError, TrainingError
from rmadapter.store import Plan, Store, is_done
from rmadapter.tables import Grid, markdown

QUICK = {"epochs": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two small tasks as files."""
    from rmadapter.data.export import export_task

    place = tmp_path_factory.mktemp("data")
    made = []
    for name in ("plants", "food"):
        task = ra.load_task(f"pictograms/{name}")._only(range(4))
        cut = [split.only(range(4)).items[::8] for split in (task.train, task.val, task.test)]
        small = ra.Task(name, task.classes, task.template, *(tuple(items) for items in cut))
        made.append(str(export_task(small, place / name)))
    return made[0], made[1]


def plan(folders: tuple[str, ...], protocol: str = "base-to-novel", **changes: Any) -> Plan:
    arms = sweep.arms(changes.pop("methods", ["zero_shot", "rmadapter"]), changes.pop("method", {}), QUICK)
    return sweep.plan(protocol, arms, data=folders, **{"seeds": (1, 2), **changes})


def scores(folder: Path) -> dict[str, Any]:
    """What a sweep computed, without what differs from run to run."""
    found = {}
    for file in sorted((folder / "results").glob("*.json")):
        content = json.loads(file.read_text())
        kept = {key: {k: v for k, v in s.items() if k != "seconds"} for key, s in content["scores"].items()}
        found[content["id"]] = {"recipe": content["recipe"], "scores": kept, "error": content["error"]}
    return found


def test_every_run_once(folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, calls = plan(folders), []
    train = runs.train

    def spy(recipe: Any, out: Path, **options: Any) -> Any:
        calls.append(out.name)
        return train(recipe, out, **options)

    monkeypatch.setattr(runs, "train", spy)
    sweep.run(wanted, tmp_path)
    assert sorted(calls) == sorted(run.id for run in wanted.runs) and len(calls) == 8
    first = scores(tmp_path)
    sweep.run(wanted, tmp_path)
    sweep.run(plan(folders[:1], "few-shot", shots=(1,), seeds=(1,)), tmp_path)
    assert len(calls) == 8 + 2
    assert {key: value for key, value in scores(tmp_path).items() if key in first} == first
    assert {p.protocol: len(p.runs) for p in Store(tmp_path).plans()} == {"base-to-novel": 8, "few-shot": 2}
    result = Store(tmp_path).read(wanted.runs[1].id)
    assert result is not None and result.trained_parameters and result.training and result.training["steps"] > 0
    assert set(result.seconds) == {"setup", "train", "evaluate"} and "torch" in result.versions
    assert result.machine["device"] == "cpu" and (result.peak_memory or 1) > 0


def test_scores_are_those_of_the_commands(folders: tuple[str, str], tmp_path: Path) -> None:
    from rmadapter.recipe import Recipe
    from rmadapter.scoring import evaluate_run

    wanted = plan(folders[:1], seeds=(3,), shots=(2,), methods=["rmadapter"])
    sweep.run(wanted, tmp_path / "sweep")
    (run,) = wanted.runs
    runs.train(Recipe.parse(run.recipe, "recipe"), tmp_path / "run", device="cpu", show_progress=False)
    result = Store(tmp_path / "sweep").read(run.id)
    for want in run.wanted:
        typed = evaluate_run(tmp_path / "run", classes=want.classes, device="cpu", plots=False)
        assert result is not None and result.scores[want.key].accuracy == typed.scores.accuracy


def test_more_evaluations_of_a_run_do_not_train_it_again(folders: tuple[str, str], tmp_path: Path) -> None:
    shared = plan(folders, "cross-dataset", seeds=(1,), methods=["rmadapter"])
    again = plan((*folders[:1], f"{folders[1]}/../food"), "domain-generalization", seeds=(1,), methods=["rmadapter"])
    assert [run.id for run in shared.runs] == [run.id for run in again.runs]
    sweep.run(shared, tmp_path)
    before = (tmp_path / "runs" / shared.runs[0].id / "steps.jsonl").stat().st_mtime_ns
    sweep.run(again, tmp_path)
    assert (tmp_path / "runs" / shared.runs[0].id / "steps.jsonl").stat().st_mtime_ns == before
    result = Store(tmp_path).read(shared.runs[0].id)
    assert result is not None and len(result.scores) == 3 and is_done(result, shared.runs[0])


def test_a_failed_run_is_recorded_and_tried_again(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, broken = plan(folders, seeds=(1,)), [TrainingError("it burns"), RuntimeError("a bug")]
    train = runs.train

    def fail(recipe: Any, out: Path, **options: Any) -> Any:
        if recipe.method == "rmadapter":
            raise broken[recipe.data == folders[1]]
        return train(recipe, out, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", fail)
        sweep.run(wanted, tmp_path)
    text = markdown(Grid.read(wanted, Store(tmp_path)))
    assert "2 of 4 runs are missing" in text and "failed: it burns" in text and "failed: RuntimeError: a bug" in text
    errors = [content["error"] for content in scores(tmp_path).values() if content["error"]]
    assert sorted("Traceback" in error for error in errors) == [False, True]
    sweep.run(wanted, tmp_path)
    assert "missing" not in markdown(Grid.read(wanted, Store(tmp_path)))


def test_mistakes_are_found_before_anything_is_computed(folders: tuple[str, str]) -> None:
    with pytest.raises(SettingError, match="none of the methods has a setting 'rnk'"):
        plan(folders, method={"rnk": 3})
    with pytest.raises(SettingError, match="rank is not valid"):
        plan(folders, method={"rank": -3})
    with pytest.raises(DataError, match="there is no task"):
        plan(("nowhere",))
    with pytest.raises(SettingError, match="no setting 'epoch'"):
        sweep.plan("few-shot", [sweep.Arm("x", {"method": {"name": "rmadapter"}, "train": {"epoch": 2}})], data=folders)


def test_labels_keep_sweeps_apart(folders: tuple[str, str]) -> None:
    labels = {run.label for run in plan(folders, shots=(1, 16), seeds=(1,), method={"rank": 4}).runs}
    usual = "epochs=1 batch_size=4"
    assert labels == {
        f"{name} {usual}{shots}" for name in ("zero_shot", "rmadapter rank=4") for shots in ("", " shots=1")
    }


def test_an_id_does_not_depend_on_where_the_data_lie(folders: tuple[str, str], tmp_path: Path) -> None:
    import shutil

    moved = str(shutil.copytree(folders[0], tmp_path / "plants"))
    assert [run.id for run in plan((moved,)).runs] == [run.id for run in plan(folders[:1]).runs]
    rows = json.loads((tmp_path / "plants" / "split.json").read_text())
    rows["test"] = rows["test"][1:]
    (tmp_path / "plants" / "split.json").write_text(json.dumps(rows))
    assert not {run.id for run in plan((moved,)).runs} & {run.id for run in plan(folders[:1]).runs}


def test_two_sweeps_share_a_folder(folders: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from rmadapter.cli import main; main()", "bench", "base-to-novel"]
    options = ["--data", ",".join(folders), "--seeds", "1,2", "--train.epochs", "1", "--train.batch-size", "4"]
    started = [
        subprocess.Popen([*command, *options, "--out", str(tmp_path / "both")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    tables = [process.communicate()[0].partition("\\n\\n## ")[0] for process in started]
    assert [process.returncode for process in started] == [0, 0] and tables[0].split("s now")[0]
    sweep.run(plan(folders), tmp_path / "alone")
    assert scores(tmp_path / "both") == scores(tmp_path / "alone")
