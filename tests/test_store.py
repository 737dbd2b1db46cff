"""The store: ids, locks, what counts as done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmadapter.errors import DataError
from rmadapter.recipe import resolve
from rmadapter.store import Plan, Planned, Result, Scored, Store, Wanted, is_done, missing, run_id


def recipe(**changes: Any) -> dict[str, Any]:
    return resolve(None, {"train": changes.pop("train", {}), "method": changes.pop("method", {}), **changes}).plain()


def planned(label: str = "a", run: str = "1", split: str = "s", **where: Any) -> Planned:
    wanted = Wanted(role="base", data="t", classes="base", split=split)
    content = {"data": "t", "seed": 1, "shots": 16, **where}
    return Planned(id=run, label=label, recipe=content, backbone="b", split=split, wanted=(wanted,))


def scored(accuracy: float = 50.0, split: str = "s") -> Scored:
    return Scored(
        split=split, accuracy=accuracy, mean_class_accuracy=accuracy, ece=1.0, images=10, classes=2, seconds=0.1
    )


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


def test_a_changed_default_changes_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from rmadapter import recipes

    before, read = run_id(recipe(), "b", "s"), recipes.read
    monkeypatch.setattr(recipes, "read", lambda name: {**read(name), "train": {**read(name)["train"], "epochs": 9}})
    assert run_id(recipe(), "b", "s") != before


def test_done_means_every_wanted_score_on_the_very_split() -> None:
    assert not is_done(None, planned())
    assert missing(None, planned()) == list(planned().wanted)
    assert not is_done(result(), planned())
    whole = result(scores={"t base": scored()})
    assert is_done(whole, planned())
    assert not is_done(whole, planned(split="another"))
    assert not is_done(result(scores={"t base": scored()}, error="no"), planned())


def test_results_and_plans_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    with pytest.raises(DataError, match="holds no sweep"):
        store.plans()
    store.create()
    assert store.read("1") is None
    store.write(result(scores={"t base": scored()}))
    assert store.read("1") == result(scores={"t base": scored()})
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


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(DataError, match="something else than a sweep"):
        Store(tmp_path).create()
    with pytest.raises(DataError, match="cannot use"):
        Store(tmp_path / "thesis.txt" / "sweep").create()
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
