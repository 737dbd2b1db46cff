"""The study of tools/reconstruction: what starts from what, what is chosen and by which items, tables from a store."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import curves
import pytest
import results
import stages
import study as driver
from figures import _term, compared, filled, write_pages
from PIL import Image
from results import Scores, difference, parts, ranking, walk
from stages import Changes, Chosen, Study

import rmadapter as ra
from rmadapter import arms, sweep
from rmadapter.data import task_names
from rmadapter.errors import DataError, SettingError, UserError
from rmadapter.recipe import resolve
from rmadapter.store import Store, decides

SHIPPED = Path(__file__).parent.parent / "experiments" / "reconstruction"
BUDGET = 300
"""Trained runs that settings are chosen by: two hours of two cores."""


@pytest.fixture(scope="module")
def shipped() -> Study:
    return Study.load(SHIPPED)


def first_of_all(study: Study) -> Chosen:
    """As if the first candidate had won everywhere."""
    chosen = Chosen()
    for stage in study.stages:
        if stage.choose == "together":
            chosen.together = stage.candidates[0].over(chosen.together)
        for setting in stage.settings if stage.choose == "each" else ():
            for arm in stage.arms:
                chosen.add(setting, arm, stage.candidates[0])
    return chosen


def test_every_arm_of_every_stage_is_a_recipe_and_choosing_is_affordable(shipped: Study) -> None:
    chosen, runs = first_of_all(shipped), {"val": set(), "test": set()}
    for stage in shipped.stages:
        for setting in stage.settings:
            for arm in stages.made(shipped, stage, setting, chosen):
                recipe = resolve(None, {**arm.changes, "shots": shipped.situation(setting).shots}).plain()
                for seed in stage.seeds if recipe["method"] != "zero_shot" else ():
                    runs[stage.items].add(json.dumps([decides(recipe), shipped.data[stage.data], seed]))
    tasks = len(shipped.data["tuning"])
    assert len(runs["val"]) * tasks <= BUDGET and tasks == 3
    assert {stage.items for stage in shipped.stages if stage.choose != "none" or stage.candidates} == {"val"}
    for name in (*shipped.data["tuning"], *shipped.data["styles"]):
        assert name in task_names(domains=True)


def test_a_new_recipe_would_change_no_run_of_the_study(shipped: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmadapter import recipes

    def runs() -> list[Any]:
        (stage,) = (stage for stage in shipped.stages if stage.name == "both")
        return [resolve(None, arm.changes).plain() for arm in stages.made(shipped, stage, "usual", Chosen())]

    before, read = runs(), recipes.read

    def other(name: str, case: Any = recipes.USUAL) -> dict[str, Any]:
        found = read(name, case)
        method = {**found.get("method", {}), "reconstruction_image": 7.0, "scale": 0.3}
        return {
            **found,
            "method": method,
            "train": {**found.get("train", {}), "lr": 0.5, "updates": 9, "momentum": 0.1},
        }

    monkeypatch.setattr(recipes, "read", other)
    assert runs() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('items = "test"', "a stage that scores test items has no candidates"),
        ('arms = ["nobody"]', "unknown arm 'nobody'"),
        ('settings = ["dark"]', "unknown setting 'dark'"),
        ('data = "mine"', "unknown list of tasks 'mine'"),
        ('chose = "each"', "stage 1: unknown setting 'chose'"),
        ('candidates = [{labl = "a"}]', "candidates is not valid"),
        ("candidates = []", "there is nothing to choose from"),
    ],
)
def test_what_is_not_allowed(change: str, said: str, tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "arms.toml", tmp_path)
    lines = {
        "name": '"one"',
        "about": '"?"',
        "arms": '["RMAdapter"]',
        "choose": '"each"',
        "candidates": '[{label = "a"}]',
    }
    key, _, value = change.partition(" = ")
    stage = "\n".join(f"{name} = {text}" for name, text in {**lines, key: value}.items())
    (tmp_path / "stages.toml").write_text(f"[base]\n[data]\ntuning = []\n[[stages]]\n{stage}\n")
    with pytest.raises(SettingError, match=said):
        Study.load(tmp_path)


def test_an_arm_starts_from_one_that_there_is(tmp_path: Path) -> None:
    for file in SHIPPED.glob("*.toml"):
        text = file.read_text().replace('"RMAdapter, 1 layer" = ["RMAdapter"]', '"RMAdapter, 1 layer" = ["nobody"]')
        (tmp_path / file.name).write_text(text)
    with pytest.raises(SettingError, match="unknown arm 'nobody'"):
        Study.load(tmp_path)


def small_study(folder: Path, data: str) -> Study:
    """Two stages that choose, and one that measures."""
    folder.mkdir()
    (folder / "arms.toml").write_text("""
        [[arms]]
        label = "zero-shot"
        method = {name = "zero_shot"}
        [[arms]]
        label = "plain"
        method = {name = "rmadapter", consistency_image = 0.0}
        [[arms]]
        label = "whole"
        method = {name = "rmadapter"}
    """)
    (folder / "stages.toml").write_text(f"""
        base = {{method = {{rank = 2, scale = 1.0, zero_start = true}}, train = {{updates = 2, batch_size = 4}}}}
        data = {{tuning = ["{data}"]}}
        settings = [{{name = "few", shots = 1, method = {{rank = 3}}}}]
        [[stages]]
        name = "rate"
        about = "together"
        arms = ["plain", "whole"]
        choose = "together"
        candidates = [
          {{label = "diverges", train = {{lr = 1e30, optimizer = "sgd"}}}},
          {{label = "learns", train = {{lr = 0.01}}}},
        ]
        [[stages]]
        name = "weight"
        about = "each"
        arms = ["whole"]
        settings = ["usual", "few"]
        choose = "each"
        candidates = [
          {{label = "a", method = {{consistency_image = 1.0}}}},
          {{label = "b", method = {{consistency_image = 50.0}}}},
        ]
        [[stages]]
        name = "end"
        about = "measured"
        arms = ["zero-shot", "whole"]
        items = "test"
        settings = ["usual", "few"]
    """)
    return Study.load(folder)


def test_what_stands_over_what(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study", "x")
    study = study.model_copy(update={"start": {"whole": ("plain",)}})
    candidate = study.stage("weight").candidates[1]
    chosen = Chosen(together=Changes(method={"rank": 4, "scale": 2.0}, train={"lr": 0.5}))
    chosen.add("usual", "plain", Changes(method={"scale": 3.0, "consistency_text": 3.0, "reconstruction_text": 3.0}))
    chosen.add("usual", "whole", Changes(method={"consistency_text": 4.0, "hidden": 4}))
    chosen.add("few", "plain", Changes(method={"consistency_text": 5.0, "consistency_image": 5.0}))

    def changes(arm: str, setting: str, candidate: stages.Candidate | None = None) -> dict[str, Any]:
        found = stages.arm(study, arm, setting, candidate, chosen)
        assert found.changes["train"] == {"updates": 2, "batch_size": 4, "lr": 0.5}
        return {key: value for key, value in found.changes["method"].items() if key != "zero_start"}

    whole = {
        "name": "rmadapter",
        "rank": 4,
        "scale": 3.0,
        "consistency_text": 4.0,
        "reconstruction_text": 3.0,
        "hidden": 4,
    }
    assert changes("whole", "usual") == whole
    assert changes("whole", "few") == {**whole, "rank": 3, "consistency_text": 5.0, "consistency_image": 5.0}
    assert changes("plain", "few")["consistency_image"] == 0.0  # what an arm is, nothing that was chosen takes away
    assert changes("plain", "few", candidate)["consistency_image"] == 50.0
    zero = stages.arm(study, "zero-shot", "few", None, chosen)
    assert zero.changes == {"method": {"name": "zero_shot"}, "train": {}} and zero.label == "zero-shot (few)"


def test_a_difference_is_paired_by_task_and_its_error_is_over_tasks() -> None:
    def scores(*rows: tuple[float | None, ...]) -> Scores:
        return Scores({"HM": {f"task{i}": dict(enumerate(row)) for i, row in enumerate(rows)}})

    one, other = scores((60.0, 62.0), (50.0, 50.0), (40.0, 44.0)), scores((58.0, 58.0), (51.0, 51.0), (39.0, 39.0))
    found = difference(one, other, "HM")
    assert found is not None and found.by_task == (3.0, -1.0, 3.0)
    assert found.mean == pytest.approx(5 / 3) and found.error == pytest.approx((16 / 3 / 3) ** 0.5)
    assert str(found) == "+1.7 ± 1.3 (2/3)"
    first = difference(one, other, "HM", seeds=(0,))
    assert first is not None and first.by_task == (2.0, -1.0, 1.0)
    assert one.mean("HM").mean == pytest.approx(51.0) and one.mean("HM").error == pytest.approx(1.0)
    hole = scores((60.0, None), (50.0, 50.0), (40.0, 44.0))
    assert difference(hole, other, "HM") is None and hole.mean("HM").mean is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task as files."""
    from rmadapter.data.export import export_task

    task = ra.load_task("pictograms/faces")._only(range(4))
    cut = [split.only(range(4)).items[::8] for split in (task.train, task.val, task.test)]
    small = ra.Task("faces", task.classes, task.template, *(tuple(items) for items in cut))
    return export_task(small, tmp_path_factory.mktemp("data") / "faces")


def test_from_choosing_to_the_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, out = small_study(tmp_path / "study", folder.as_posix()), tmp_path / "sweep"
    with pytest.raises(UserError, match="'weight' starts from what 'rate' chooses"):
        driver.run(study, ["weight"], out)
    tests = {item.picture.path: item.picture.path.read_bytes() for item in ra.load_task(str(folder)).test_items}
    for file in tests:
        file.write_bytes(b"")  # whoever opens one while settings are chosen fails
    driver.run(study, ["rate", "weight"], out)
    for file, content in tests.items():
        file.write_bytes(content)
    assert not (out / "test").exists()
    assert "diverges" in capsys.readouterr().out
    chosen, found = Chosen(), parts(study, study.stage("rate"), Chosen(), out)
    assert found[0].waiting == 0 and len(found[0].failures) == 2
    assert [candidate.label for candidate, _ in ranking(found[0].stage, [(found[0], "plain")])] == ["learns"]
    results.choose(found, chosen)
    assert chosen.together.train == {"lr": 0.01}
    best_is_chosen(study, chosen, out)

    driver.run(study, ["all"], out)
    runs = {path: path.stat().st_mtime_ns for path in (out / "test" / "results").iterdir()}
    assert len(runs) == 4 and all(len(Store(out / name).plans()) == 1 for name in ("tuning", "test"))
    driver.run(study, ["end"], out)
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    listed = driver.listing(study, out)
    assert "val: 2 of 4 runs are done" in listed and "val: 4 of 4 runs are done" in listed
    assert "  chosen: learns\n" in listed and "  failed: plain: diverges" in listed
    assert "test: 4 of 4 runs are done, 0.0 h left" in listed
    as_bench_reads_them(study, chosen, out)
    the_page_says_the_same(study, chosen, out)


def best_is_chosen(study: Study, chosen: Chosen, out: Path) -> None:
    """The candidate with the higher HM of validation items, in each setting; the first where they are close."""
    for part in parts(study, study.stage("weight"), chosen, out):
        (best, top), (_, other) = ranking(part.stage, [(part, "whole")])
        assert top >= other and top == part.scores("whole", best.label).mean("HM").mean
        if top - other < results.CLOSE:
            best = part.stage.candidates[0]
        results.choose([part], chosen)
        assert chosen.own[part.setting, "whole"].method == best.method
        assert {run.recipe["test_on"] for run in part.grid.plan.runs} == {"val"}


def as_bench_reads_them(study: Study, chosen: Chosen, out: Path) -> None:
    """The files under arms/ are the very runs of their stage."""
    (part, _) = parts(study, study.stage("end"), chosen, out)
    made = arms.read(out / "arms" / "end (usual).toml")
    plan = sweep.plan("base-to-novel", made, data=study.data["tuning"])
    assert [run.id for run in plan.runs] == [run.id for run in part.grid.plan.runs]


def the_page_says_the_same(study: Study, chosen: Chosen, out: Path) -> None:
    """Its tables of what was chosen and of every candidate hold the store's numbers."""
    page = out / "docs" / "experiments" / "page.md"
    page.parent.mkdir(parents=True)
    walked = list(walk(study, out))
    write_pages(walked, page)
    text = page.with_name("page-tables.md").read_text()
    assert "| rate | plain | usual | diverges | – | – | – |" in text
    for part in parts(study, study.stage("weight"), chosen, out):
        ranked = [(candidate.label, f"{value:.1f}") for candidate, value in ranking(part.stage, [(part, "whole")])]
        (best, top), (other, less) = sorted(
            ranked, key=lambda pair: pair[0] != results.best(part.stage, [(part, "whole")]).label
        )
        assert f"| weight | whole | {part.setting} | 2 | {best} | {top} | {other}: {less} |" in text
        scores = part.scores("whole", other)
        (run,) = [run for run in part.grid.plan.runs if run.label == part.labels["whole", other]]
        result = Store(out / "tuning").read(run.id)
        assert result is not None
        base, novel = (found.accuracy for found in result.scores.values())
        assert f"| weight | whole | {part.setting} | {other} | {base:.1f} | {novel:.1f} | {scores.mean('HM')} |" in text
        row = [run.recipe["data"], "1", "val", f"{base}", f"{novel}", run.id]
        assert ["weight", part.setting, "whole", other, *row] in list(csv.reader(driver.scores(walked).splitlines()))


def test_the_page_keeps_its_words_and_says_what_is_missing(shipped: Study, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "experiments" / "page.md"
    page.parent.mkdir(parents=True)
    nothing = [(stage, None) for stage in shipped.stages]
    write_pages(nothing, page)
    text, tables = page.read_text(), page.with_name("page-tables.md").read_text()
    assert "## The paper's table" in text and "Not run yet." in text and "Nothing has been run." in tables
    page.write_text(text.replace("# Does reconstruction pay?", "# Does it?\n\nIt does not."))
    write_pages(nothing, page)
    assert page.read_text() == text.replace("# Does reconstruction pay?", "# Does it?\n\nIt does not.")
    with pytest.raises(DataError, match="has not one block 'kept'"):
        filled(text.replace("<!-- end kept -->", ""), "kept", "", page)


@dataclass
class Drawn:
    """A part of a stage whose scores are known."""

    stage: Any
    setting: str
    values: dict[tuple[str, str], tuple[float, ...]]
    """Base and novel accuracy of each task, by arm and candidate."""
    updates: int = 600

    @property
    def labels(self) -> dict[tuple[str, str], str]:
        return {key: key[0] for key in self.values}

    @property
    def grid(self) -> Any:
        run = SimpleNamespace(recipe={"train": {"updates": self.updates}})
        return SimpleNamespace(distinct=lambda _: ["a", "b"], runs=lambda **_: [run])

    def scores(self, arm: str, candidate: str = "") -> Scores:
        base, novel, *other = self.values[arm, candidate]
        rows = {"base": (base, other[0]), "novel": (novel, other[1])}
        rows["HM"] = tuple(ra.harmonic_mean(*pair) for pair in zip(*rows.values(), strict=True))
        return Scores({role: {"a": {2: a}, "b": {2: b}} for role, (a, b) in rows.items()})


def test_the_plots_show_what_was_scored(shipped: Study, tmp_path: Path) -> None:
    zero, single = (80.0, 60.0, 60.0, 60.0), (90.0, 50.0, 80.0, 56.0)
    alone, weighed = shipped.stage("single"), shipped.stage("reconstruction")
    parts = [Drawn(alone, "usual", {("single branch", c.label): single for c in alone.tried})]
    own = {(weighed.arms[0], c.label): (85.0 - i, 55.0, 75.0, 57.0 + i) for i, c in enumerate(weighed.tried)}
    parts.append(Drawn(weighed, "usual", own))
    assert curves._rates(parts) == [0.0003, 0.001, 0.004] and len(own) == 9
    points = curves._points(parts, 0.001)
    assert points["single branch"] == [(85.0, 53.0, "")]
    assert points[weighed.arms[0]] == [(79.5, 56.5, "0.1"), (78.0, 58.0, "1"), (76.5, 59.5, "10")]
    recipe = [Drawn(shipped.stage("recipe"), "usual", {("zero-shot", ""): zero})]
    assert curves.weights(parts, recipe, tmp_path / "weights.png")
    assert not curves.weights([], [], tmp_path / "none.png")

    curve = [
        Drawn(shipped.stage("curve"), "x", {(arm, ""): single for arm in shipped.stage("curve").arms}, 150),
        Drawn(shipped.stage("curve"), "y", {(arm, ""): zero for arm in shipped.stage("curve").arms}, 2400),
    ]
    ablation = [
        Drawn(shipped.stage("ablation"), "usual", {(arm, ""): zero for arm in shipped.stage("ablation").arms}, 600)
    ]
    gained = curves._lengths(curve, ablation, "novel")
    assert gained["RMAdapter"] == [(150, -7.0, pytest.approx(3.0)), (600, 0.0, 0.0), (2400, 0.0, 0.0)]
    assert curves.lengths(curve, ablation, tmp_path / "lengths.png") and not curves.lengths([], [], tmp_path / "n.png")
    for name in ("weights", "lengths"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 500 and len(image.convert("RGB").getcolors(10**6)) > 20


def test_differences_in_every_seed_and_losses_without_their_weights() -> None:
    one, other = (
        Scores({role: {"a": {2: x, 3: None}, "b": {2: x + 2, 3: 50.0}} for role in results.ROLES}) for x in (60.0, 59.0)
    )
    name, base, *_, each = compared("x", one, "y", other)
    assert (name, base, each) == ("x − y", None, "+1.0, –")
    weights = {"reconstruction_image": 0.1, "consistency_text": 25.0, "reconstruction_text": 0.0}
    losses = {"ce": 0.5, "reconstruction_image": 0.08, "consistency_text": 0.1, "reconstruction_text": 0.0}
    run: Any = SimpleNamespace(recipe={"method_settings": weights}, training={"terms": losses})
    assert [_term([run, run], key) for key in (*losses, "consistency_image")] == ["0.500", "0.800", "40", None, None]


def test_the_first_stays_unless_another_is_clearly_better(monkeypatch: pytest.MonkeyPatch, shipped: Study) -> None:
    stage = shipped.stage("blocks")
    first, second, third = stage.candidates
    for ranked, winner in (
        ([(second, 70.4), (first, 70.0), (third, 60.0)], first),
        ([(second, 70.6), (third, 70.5), (first, 70.0)], second),
        ([(third, 50.0)], third),  # the others diverged
    ):
        monkeypatch.setattr(results, "ranking", lambda *_, ranked=ranked: ranked)
        assert results.best(stage, []) == winner
    monkeypatch.setattr(results, "ranking", lambda *_: [])
    with pytest.raises(UserError, match="no candidate was trained"):
        results.best(stage, [])
    monkeypatch.setattr(driver, "ranking", lambda *_: [])
    assert driver._winner(stage, []).startswith("nothing")


def test_all_blocks_are_all_blocks(shipped: Study) -> None:
    shape = ra.load_backbone("pictoclip-s").shape
    whole = {"image_blocks": f"1-{shape.image.depth}", "text_blocks": f"1-{shape.text.depth}"}
    assert shipped.situation("all blocks").method == whole
    assert shipped.stage("blocks").candidates[-1].method == whole


def test_what_the_disk_failed_is_waited_for_and_what_diverged_is_not(shipped: Study) -> None:
    run = SimpleNamespace(label="x", recipe={"data": "a", "seed": 1})
    why = ["the loss is not finite at step 3 of 600", "OSError: no space left on device"]
    grid: Any = SimpleNamespace(open=[run, run, run], failed=[(run, each) for each in why])
    part = results.Part(shipped.stage("both"), "usual", grid, {})
    assert part.waiting == 2 and part.failures[1] == "x, a, seed 1: OSError: no space left on device"
