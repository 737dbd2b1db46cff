"""The store: ids, locks, what counts as done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmadapter.data.check import Broken
from rmadapter.errors import DataError, UserError
from rmadapter.recipe import resolve
from rmadapter.store import Plan, Planned, Result, Scored, Store, Wanted, is_done, missing, run_id


def recipe(**changes: Any) -> dict[str, Any]:
    return resolve(None, {"train": changes.pop("train", {}), "method": changes.pop("method", {}), **changes}).plain()


def planned(label: str = "a", run: str = "1", split: str = "s", **where: Any) -> Planned:
    wanted = Wanted(role="base", data="t", classes="base", split=split)
    content = {"data": "t", "seed": 1, "shots": 16, **where}
    return Planned(id=run, label=label, recipe=content, backbone="b", split=split, wanted=(wanted,))


def scored(accuracy: float = 50.0, split: str = "s") -> Scored:
    where = {"data": "t", "split": split, "images": 10, "classes": 2, "seconds": 0.1}
    return Scored(accuracy=accuracy, mean_class_accuracy=accuracy, ece=1.0, **where)


WHOLE = {"s base": scored()}


def result(run: str = "1", **changes: Any) -> Result:
    return Result.parse({"id": run, "recipe": {}, "backbone": "b", "split": "s", **changes}, "result")


def test_an_id_says_all_that_decides_a_run_and_nothing_else() -> None:
    usual = run_id(recipe(), "b", "s")
    for same in (
        recipe(data="pictograms/food"),  # the split's hash stands for the data
        recipe(backbone="ViT-B-16", pretrained="none", method=recipe()["method_settings"], train=recipe()["train"]),
        recipe(train={"workers": 4}),
    ):
        assert run_id(same, "b", "s") == usual
    others = [
        run_id(recipe(seed=0), "b", "s"),
        run_id(recipe(shots=4), "b", "s"),
        run_id(recipe(classes="base"), "b", "s"),
        run_id(recipe(train={"lr": 0.1}), "b", "s"),
        run_id(recipe(method={"rank": 16}), "b", "s"),
        run_id(recipe(method={"name": "zero_shot"}), "b", "s"),
        run_id(recipe(), "other weights", "s"),
        run_id(recipe(), "b", "another split"),
    ]
    assert len({usual, *others}) == 1 + len(others)


def test_of_a_file_the_content_decides(tmp_path: Path) -> None:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return run_id(recipe(method={"name": "coprompt", "sentences": str(tmp_path / name)}), "b", "s")

    first = written("a.json", "{}")
    assert written("b.json", "{}") == first
    assert written("a.json", "{ }") != first
    (tmp_path / "b.json").unlink()
    with pytest.raises(DataError, match=r"b\.json cannot be read"):
        run_id(recipe(method={"name": "coprompt", "sentences": str(tmp_path / "b.json")}), "b", "s")


def test_a_changed_default_changes_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from rmadapter import recipes

    before, read = run_id(recipe(), "b", "s"), recipes.read

    def other(name: str, case: Any = recipes.USUAL) -> dict[str, Any]:
        found = read(name, case)
        return {**found, "train": {**found["train"], "epochs": 9}}

    monkeypatch.setattr(recipes, "read", other)
    assert run_id(recipe(), "b", "s") != before


def test_done_means_every_wanted_score_on_the_very_split() -> None:
    assert not is_done(None, planned())
    assert missing(None, planned()) == list(planned().wanted)
    assert not is_done(result(), planned())
    whole = result(scores=WHOLE)
    assert is_done(whole, planned())
    assert not is_done(whole, planned(split="another"))
    assert is_done(result(scores=WHOLE, error="of an attempt to add to it"), planned())


def test_an_error_in_one_line() -> None:
    assert result(error="it burns\n  do: cool it").reason == "it burns"
    assert (
        result(error="Traceback (most recent call last):\n  File …\nRuntimeError: a bug\n").reason
        == "RuntimeError: a bug"
    )


def test_results_and_plans_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    with pytest.raises(DataError, match="holds no sweep"):
        store.plans()
    store.create()
    assert store.read("1") is None
    store.write(result(scores=WHOLE))
    assert store.read("1") == result(scores=WHOLE)
    first = Plan(protocol="few-shot", runs=(planned("a", "1"), planned("b", "2")))
    store.write_plan(first)
    store.write_plan(first)
    store.write_plan(Plan(protocol="few-shot", runs=(planned("b", "2"), planned("c", "3"))))
    store.write_plan(Plan(protocol="base-to-novel", runs=(planned("d", "4"),)))
    found = {plan.protocol: {run.label for run in plan.runs} for plan in store.plans()}
    assert found == {"few-shot": {"a", "b", "c"}, "base-to-novel": {"d"}}
    (store.folder / "results" / "1.json").write_text("{")
    with pytest.raises(DataError, match=r"1\.json cannot be read"):
        store.read("1")


def test_equal_runs_of_several_plans_want_what_any_of_them_does(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Wanted(role="target", data="u", classes="all", split="u")
    store.create()
    store.write_plan(Plan(protocol="cross-dataset", runs=(planned(),)))
    more = planned(data="./t").model_copy(update={"wanted": (other,)})
    store.write_plan(Plan(protocol="cross-dataset", runs=(planned("z", "9"), more)))
    (plan,) = store.plans()
    assert [(run.label, len(run.wanted)) for run in plan.runs] == [("a", 2), ("z", 1)] and plan.superseded == 0
    assert plan.runs[0].wanted[0] == other and plan.runs[0].recipe["data"] == "./t"  # the newest's names
    renamed = other.model_copy(update={"data": "./u"})
    changed = other.model_copy(update={"split": "new images"})
    for again in (renamed, changed):  # the same items under another name; other items under the same name
        store.write_plan(Plan(protocol="cross-dataset", runs=(more.model_copy(update={"wanted": (again,)}),)))
        assert [run.wanted[0] for run in store.plans()[0].runs if run.label == "a"] == [again]
        assert other not in store.plans()[0].runs[0].wanted


def test_the_newest_plan_holds_where_runs_differ(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    old = Plan(protocol="few-shot", runs=(planned("a", "old"), planned("b", "2", seed=2), planned("a", "3", seed=2)))
    new = Plan(protocol="few-shot", runs=(planned("a", "new"), planned("c", "4")))
    store.write_plan(old)
    store.write_plan(new)
    (plan,) = store.plans()
    assert [run.id for run in plan.runs] == ["2", "3", "new", "4"] and plan.superseded == 1
    store.write_plan(old)  # asked for again
    (plan,) = store.plans()
    assert {run.id for run in plan.runs} == {"old", "2", "3", "4"} and plan.superseded == 1


def test_what_was_left_out_is_listed_once_a_task(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    store.write_plan(Plan(protocol="few-shot", runs=(), skipped={"my/photos": (Broken("a.png", "is empty"),)}))
    assert store.skipped("my/photos").read_text() == "path,reason\na.png,is empty\n"
    assert store.plans()[0].skipped == {"my/photos": (Broken("a.png", "is empty"),)}
    assert store.skipped("my/photos").parent == tmp_path / "skipped" and store.skipped("x/photos") != store.skipped(
        "photos"
    )


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(DataError, match="something else than a sweep"):
        Store(tmp_path).create()
    with pytest.raises(DataError, match="cannot use"):
        Store(tmp_path / "thesis.txt" / "sweep").create()
    with pytest.raises(DataError, match="cannot use"):
        Store(tmp_path / "thesis.txt").create()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


HOLD = """
import sys
from pathlib import Path
from rmadapter.store import Store
with Store(Path(sys.argv[1])).lock("1") as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_lock_holds_across_processes_and_ends_with_its_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        with store.lock("1") as mine, store.lock("2") as other:
            assert not mine and other
        process.kill()
    for _ in range(2):
        with store.lock("1") as mine:
            assert mine


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "locks" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot lock"), Store(tmp_path).lock("1"):
        pass
