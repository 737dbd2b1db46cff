"""Sweeps: every run once, failures recorded, nothing computed twice."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rmadapter as ra
from rmadapter import adapter, sweep
from rmadapter import run as runs
from rmadapter.arms import Arm, arms
from rmadapter.errors import DataError, SettingError, TrainingError, UserError
from rmadapter.kit import Kit
from rmadapter.page import render
from rmadapter.recipe import resolve
from rmadapter.store import Plan, Store, is_done
from rmadapter.tables import Grid, markdown

QUICK = {"epochs": 1, "batch_size": 4}
TRANSFERS = ("cross-dataset", "domain-generalization")


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
    methods = arms(changes.pop("methods", ["zero_shot", "rmadapter"]), changes.pop("method", {}), QUICK)
    return sweep.plan(protocol, methods, data=folders, **{"seeds": (1, 2), **changes})


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


def moved(folder: str, place: Path) -> str:
    """A copy somewhere else."""
    return str(shutil.copytree(folder, place))


def trained_at(folder: Path, plan: Plan) -> list[int]:
    return [(folder / "runs" / run.id / "steps.jsonl").stat().st_mtime_ns for run in plan.runs]


def test_more_evaluations_of_a_run_do_not_train_it_again(folders: tuple[str, str], tmp_path: Path) -> None:
    first = plan(folders[:1], "few-shot", shots=(16,), seeds=(1,), methods=["rmadapter"])
    elsewhere = moved(folders[0], tmp_path / "moved")
    more = plan((elsewhere, folders[1]), "domain-generalization", seeds=(1,), methods=["rmadapter"])
    assert [run.id for run in first.runs] == [run.id for run in more.runs]
    out = tmp_path / "sweep"
    sweep.run(first, out)
    before = trained_at(out, first)
    sweep.run(more, out)
    assert trained_at(out, first) == before
    result = Store(out).read(first.runs[0].id)
    assert result is not None and result.error is None and is_done(result, more.runs[0])
    assert [Path(score.data).name for score in result.scores.values()] == ["plants", "food"]


def test_a_temperature_that_was_fitted_since_is_none_of_the_sweeps(folders: tuple[str, str], tmp_path: Path) -> None:
    wanted = plan(folders[:1], seeds=(1,), methods=["rmadapter"])
    sweep.run(wanted, tmp_path)
    (run,), before = wanted.runs, scores(tmp_path)
    adapter.record_temperature(Store(tmp_path).run_folder(run.id), 3.0)
    (tmp_path / "results" / f"{run.id}.json").unlink()
    sweep.run(wanted, tmp_path)
    assert scores(tmp_path) == before


def test_a_run_of_zero_shot_is_tried_again_after_a_full_disk(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(folders[:1], seeds=(1,), methods=["zero_shot"])
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "save", refuse)
        sweep.run(wanted, tmp_path)
    store = Store(tmp_path)
    assert "cannot write it" in Grid.read(wanted, store).failed[0][1]
    sweep.run(wanted, tmp_path)
    assert not Grid.read(wanted, store).open


def refuse(*_: object) -> None:
    raise UserError("cannot write it", got="no space")


def test_a_run_goes_on_under_another_name_of_its_data(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmadapter import train as training

    first = plan(folders[:1], seeds=(1,), methods=["rmadapter"])

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.adapter, "save", killed)
        sweep.run(first, tmp_path / "sweep")
    again = plan((moved(folders[0], tmp_path / "moved"),), seeds=(1,), methods=["rmadapter"])
    sweep.run(again, tmp_path / "sweep")
    assert not Grid.read(first, Store(tmp_path / "sweep")).open


def test_a_settings_file_may_move_between_two_sweeps(folders: tuple[str, str], tmp_path: Path) -> None:
    said, out = tmp_path / "said.json", tmp_path / "sweep"
    said.write_text(json.dumps({name: [f"a {name}."] for name in ra.load_task(folders[0]).classes}))
    changes: dict[str, Any] = {"seeds": (1,), "shots": (1,), "methods": ["coprompt"]}
    sweep.run(plan(folders[:1], "few-shot", method={"sentences": str(said)}, **changes), out)
    said = said.rename(tmp_path / "moved.json")
    more = plan(folders, "cross-dataset", method={"sentences": str(said)}, **changes)
    sweep.run(more, out)
    result = Store(out).read(more.runs[0].id)
    assert result is not None and result.error is None and len(result.scores) == 2


def test_a_failure_costs_no_score(folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, score, calls = plan(folders, "cross-dataset", seeds=(1,), methods=["zero_shot"]), sweep._score, []
    (run,) = wanted.runs

    def fail(method: Any, part: Any, want: Any, kit: Any) -> Any:
        calls.append(want.role)
        if len(calls) == 2:
            raise TrainingError("it burns")
        return score(method, part, want, kit)

    monkeypatch.setattr(sweep, "_score", fail)
    sweep.run(wanted, tmp_path)
    result = Store(tmp_path).read(run.id)
    assert result is not None and result.error == "it burns" and len(result.scores) == 1
    assert Grid.read(wanted, Store(tmp_path)).score(run, "source") is not None
    sweep.run(wanted, tmp_path)
    assert calls == ["source", "target", "target"]
    result = Store(tmp_path).read(run.id)
    assert result is not None and result.error is None and len(result.scores) == 2
    Store(tmp_path).write(result.model_copy(update={"error": "of another plan's wish"}))
    sweep.run(wanted, tmp_path)
    assert len(calls) == 3 and not Grid.read(wanted, Store(tmp_path)).open


def test_a_class_bound_method_is_asked_for_what_it_can_know(folders: tuple[str, str], tmp_path: Path) -> None:
    wanted = plan(folders[:1], seeds=(1,), methods=["zero_shot", "linear_probe"])
    assert [[want.role for want in run.wanted] for run in wanted.runs] == [["base", "novel"], ["base"]]
    sweep.run(wanted, tmp_path / "sweep")
    grid = Grid.read(wanted, Store(tmp_path / "sweep"))
    assert not grid.open and "knows no others" in markdown(grid)
    across, domains = (plan(folders, protocol, seeds=(1,), methods=["linear_probe"]) for protocol in TRANSFERS)
    assert [want.role for want in across.runs[0].wanted] == [want.role for want in domains.runs[0].wanted] == ["source"]
    same = plan((folders[0], moved(folders[0], tmp_path / "moved")), TRANSFERS[1], seeds=(1,), methods=["linear_probe"])
    assert [want.role for want in same.runs[0].wanted] == ["source", "target"]


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
    with pytest.raises(SettingError, match="no seeds are named"):
        plan(folders, seeds=())
    with pytest.raises(SettingError, match="rank is not valid"):
        plan(folders, method={"rank": -3})
    with pytest.raises(DataError, match="there is no task"):
        plan(("nowhere",))
    with pytest.raises(SettingError, match="unknown setting 'epoch'"):
        sweep.plan("few-shot", [Arm("x", {"method": {"name": "rmadapter"}, "train": {"epoch": 2}})], data=folders)


def test_labels_keep_sweeps_apart(folders: tuple[str, str]) -> None:
    chosen = arms(["rmadapter"], {}, {"workers": 1, "lr": 0.1})
    assert [arm.label for arm in chosen] == ["rmadapter lr=0.1"] and chosen[0].changes["train"]["workers"] == 1
    labels = {run.label for run in plan(folders, shots=(1, 16), seeds=(1,), method={"rank": 4}).runs}
    usual = "epochs=1 batch_size=4"
    assert labels == {
        f"{name} {usual}{shots}" for name in ("zero_shot", "rmadapter rank=4") for shots in ("", " shots=1")
    }


def test_an_id_does_not_depend_on_where_the_data_lie(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = moved(folders[0], tmp_path / "plants")
    assert [run.id for run in plan((copy,)).runs] == [run.id for run in plan(folders[:1]).runs]
    monkeypatch.chdir(tmp_path)
    assert plan(("./plants/",)) == plan(("plants",))
    rows = json.loads((tmp_path / "plants" / "split.json").read_text())
    rows["test"] = rows["test"][1:]
    (tmp_path / "plants" / "split.json").write_text(json.dumps(rows))
    assert not {run.id for run in plan((copy,)).runs} & {run.id for run in plan(folders[:1]).runs}


def test_other_pixels_are_other_data(folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = moved(folders[0], tmp_path / "plants")
    rows = json.loads((tmp_path / "plants" / "split.json").read_text())
    seen = plan((copy,), seeds=(1,), methods=["zero_shot"])
    turn(tmp_path / "plants", rows["test"][0][0])
    tested = plan((copy,), seeds=(1,), methods=["zero_shot"])
    assert [run.id for run in tested.runs] == [run.id for run in seen.runs]  # it learned from the same
    assert [a.key == b.key for a, b in zip(seen.runs[0].wanted, tested.runs[0].wanted, strict=True)] == [False, True]
    turn(tmp_path / "plants", rows["train"][0][0])
    learned = plan((copy,), seeds=(1,), methods=["zero_shot"])
    assert learned.runs[0].id != seen.runs[0].id and learned.runs[0].wanted == tested.runs[0].wanted
    before = plan(("pictograms/plants",), seeds=(1,), methods=["zero_shot"]).runs[0]
    monkeypatch.setattr("rmadapter.data.pictograms.version", lambda: "other artwork")
    after = plan(("pictograms/plants",), seeds=(1,), methods=["zero_shot"]).runs[0]
    assert after.id != before.id and not {w.key for w in after.wanted} & {w.key for w in before.wanted}


def test_validation_images_decide_where_settings_are_chosen_on_them(folders: tuple[str, str], tmp_path: Path) -> None:
    copy = moved(folders[0], tmp_path / "plants")
    rows = json.loads((tmp_path / "plants" / "split.json").read_text())
    methods = ["zero_shot", "linear_probe"]
    before = plan((copy,), seeds=(1,), methods=methods, shots=(16,))
    turn(tmp_path / "plants", rows["val"][0][0])
    after = plan((copy,), seeds=(1,), methods=methods, shots=(16,))
    assert [a.id == b.id for a, b in zip(before.runs, after.runs, strict=True)] == [True, False]


def test_a_kit_keeps_what_is_scored_apart(folders: tuple[str, str]) -> None:
    kit, recipes = Kit("cpu"), [resolve(None, {"data": folders[0], "test_on": part}) for part in ("test", "val")]
    tested = [{item.picture.name for item in kit.task(folders[0], recipe).test} for recipe in recipes]
    assert not tested[0] & tested[1]
    assert kit.tested(folders[0], "all", recipes[0]) != kit.tested(folders[0], "all", recipes[1])


def turn(folder: Path, name: str) -> None:
    """Replace an image by its mirror image."""
    file = next(path for path in (folder / name, folder / "images" / name) if path.is_file())
    with Image.open(file) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)


def test_a_plan_hashes_each_task_once(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rmadapter import kit

    tasks, files, hash_task, hash_file = [], [], ra.Task.sha256, kit._file_hash
    monkeypatch.setattr(ra.Task, "sha256", lambda task: tasks.append(task.name) or hash_task(task))
    monkeypatch.setattr(kit, "_file_hash", lambda path: files.append(path) or hash_file(path))
    plan(folders, seeds=(1, 2))
    assert len(tasks) == 2 and len(files) == len(set(files)) > 0


def test_what_cannot_be_read_is_looked_for_once_and_listed(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmadapter import kit

    copy, look, looks = moved(folders[0], tmp_path / "plants"), kit.find_broken, []
    rows = json.loads((tmp_path / "plants" / "split.json").read_text())
    name = rows["train"][0][0]
    next(p for p in (tmp_path / "plants" / name, tmp_path / "plants" / "images" / name) if p.is_file()).write_bytes(b"")
    monkeypatch.setattr(kit, "find_broken", lambda *splits: looks.append(splits[0].task) or look(*splits))
    wanted = plan((copy,), seeds=(1,), common={"skip_broken": True})
    with pytest.warns(UserWarning, match="left out of .*: 1 unreadable, see "):
        sweep.run(wanted, tmp_path / "sweep")
    assert len(looks) == 1 and not Grid.read(wanted, Store(tmp_path / "sweep")).open
    (listed,) = (tmp_path / "sweep" / "skipped").iterdir()
    assert listed.read_text().startswith(f"path,reason\n{name},is empty")


def test_jobs_share_the_threads_and_may_have_loader_processes_of_their_own(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)  # not the machine's cores: a user may allow fewer
    chosen = arms(["rmadapter"], {}, {**QUICK, "workers": 1})
    wanted = sweep.plan("base-to-novel", chosen, data=folders, seeds=(1,))
    sweep.run(wanted, tmp_path, jobs=2)
    grid = Grid.read(wanted, Store(tmp_path))
    assert not grid.open and not multiprocessing.active_children()
    assert {result.machine["threads"] for result in grid.results.values() if result} == {3}


def test_jobs_share_the_bytes_for_decoded_images() -> None:
    from rmadapter.data.loader import MEMORY

    assert sweep.Kit("cpu", jobs=4).pixels._kept.budget == MEMORY // 4


def test_runs_of_a_sweep_share_the_views_that_they_draw(folders: tuple[str, str], tmp_path: Path) -> None:
    methods = [
        Arm("one", {"method": {"name": "rmadapter"}, "train": {**QUICK, "augment": "crop_flip"}}),
        Arm("two", {"method": {"name": "rmadapter", "rank": 4}, "train": {**QUICK, "augment": "crop_flip"}}),
    ]
    wanted = sweep.plan("base-to-novel", methods, data=folders[:1], seeds=(1,))
    sweep.run(wanted, tmp_path)
    store = Store(tmp_path)
    found = [store.read(run.id) for run in wanted.runs]
    recalled = [result.training["recalled"] for result in found if result and result.training]
    assert recalled[0] == 0 and recalled[1] > 0
    assert "alone they would have taken longer" in render(store).html


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


def test_settings_are_chosen_without_a_look_at_test_items(folders: tuple[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "plants"
    shutil.copytree(folders[0], copy)
    task = ra.load_task(str(copy))
    for item in task.test_items:
        item.picture.path.write_bytes(b"")  # whoever opens one fails
    wanted = plan((str(copy),), seeds=(1,), common={"test_on": "val"})
    sweep.run(wanted, tmp_path / "sweep")
    results = [Store(tmp_path / "sweep").read(run.id) for run in wanted.runs]
    assert all(is_done(result, run) for result, run in zip(results, wanted.runs, strict=True))
    scored = sum(found.images for found in results[0].scores.values())
    assert scored == len(task.val_items)
    assert {run.label.partition(" ")[2] for run in wanted.runs if "zero_shot" in run.label} == {
        "epochs=1 batch_size=4 test_on=val"
    }


def test_the_draw_does_not_depend_on_what_is_scored() -> None:
    task = ra.load_task("pictograms/plants")
    assert task.without_test().base().shots(4, 1).train_items == task.base().shots(4, 1).train_items
    assert not {item.picture.name for item in task.without_test().test} & {item.picture.name for item in task.test}
