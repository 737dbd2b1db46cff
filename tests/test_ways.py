"""The protocol transfer: every way beside each other, resumed, and its tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

import rmadapter as ra
from rmadapter import run as runs
from rmadapter import sweep, tables, ways
from rmadapter.arms import Arm, arms, read
from rmadapter.data.export import export_task
from rmadapter.errors import DataError, SettingError
from rmadapter.evaluation import evaluate
from rmadapter.measures import overview
from rmadapter.store import Plan, Store
from rmadapter.tables import Grid, markdown
from small import small_folder
from typed import run as command

TRAIN = {"epochs": 1, "batch_size": 4, "augment": "none"}
NET = {"dimension": 8, "extraction_epochs": 2}
LABELS = (
    "zero_shot on clip",
    "rmadapter on pictoclip-s",
    "rmadapter on clip",
    "EFT with rmadapter of pictoclip-s on clip",
    "ensemble with rmadapter of pictoclip-s on clip",
    "transmiter from rmadapter of pictoclip-s on clip, names known",
    "transmiter+ from rmadapter of pictoclip-s on clip, names known",
    "transmiter from rmadapter of pictoclip-s on clip, blind",
    "transmiter+ from rmadapter of pictoclip-s on clip, blind",
)
"""Without the folder that the small CLIP lies in."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task and a small CLIP."""
    place = tmp_path_factory.mktemp("ways")
    task = ra.load_task("pictograms/plants")._only(range(4))
    cut = [split.only(range(4)).items[::8] for split in (task.train, task.val, task.test)]
    export_task(ra.Task("plants", task.classes, task.template, *map(tuple, cut)), place / "plants")
    small_folder(place / "clip")
    return place


def plan(place: Path, direct: bool = True, method: str = "rmadapter", **options: Any) -> Plan:
    made = [*arms([method], {}, TRAIN), *arms(["transmiter"], NET, {})]
    teacher, net = (Arm(arm.label.split()[0], arm.changes) for arm in made)
    given: dict[str, Any] = {"to": str(place / "clip"), "data": [f"{place / 'plants'}/"], **options}
    return ways.plan([teacher], [net], [teacher] if direct else [], **given)


@pytest.fixture(scope="module")
def swept(place: Path) -> tuple[Plan, Store]:
    wanted = plan(place)
    sweep.run(wanted, place / "sweep")
    return wanted, Store(place / "sweep")


def test_every_way_has_a_row(swept: tuple[Plan, Store], place: Path) -> None:
    wanted, store = swept
    grid = Grid.read(wanted, store)
    assert tuple(label.replace(str(place / "clip"), "clip") for label in grid.labels) == LABELS
    assert not grid.open and all(grid.score(run, role) is not None for run in wanted.runs for role in ("base", "novel"))
    assert len({run.id for run in wanted.runs}) == len(LABELS)
    added = [(store.read(run.id).training or {}).get("flops_added") for run in wanted.runs]  # type: ignore[union-attr]
    assert added[3] > 1.3 * added[4] > 60 * added[5] > 0 and added[:3] == [None] * 3
    costs = tables.added(grid)
    assert costs is not None and [cells[0].mean for _, cells in costs.rows] == [each / 1e6 for each in added[3:9]]
    way = wanted.runs[3]
    other = way.model_copy(update={"id": "other", "recipe": {**way.recipe, "seed": 9}})
    more = Grid(wanted.model_copy(update={"runs": (*wanted.runs, other)}), {**grid.results, "other": None})
    costs = tables.added(more)
    assert costs is not None and costs.rows[0][1][0].mean is None and costs.rows[1][1][0].mean  # no mean over a hole
    assert {run.recipe["data"] for run in wanted.runs} == {(place / "plants").as_posix()}


def test_scores_are_those_of_the_parts(swept: tuple[Plan, Store], place: Path) -> None:
    """A way's run is an adapter that any command takes; a mixture is computed from the same teacher."""
    wanted, store = swept
    task = runs.load_recipe_task(ways.own_recipe(wanted.runs[0]))
    teacher = ra.load(store.run_folder(wanted.runs[1].id))
    target = ra.load_backbone(str(place / "clip"))
    from rmadapter.transfer import Mixture

    for run in wanted.runs[3:]:
        result = store.read(run.id)
        assert result is not None
        for want in run.wanted:
            part = runs.cut(task, want.classes)
            if run.recipe["transfer"]["kind"] == "net":
                method = ra.load(store.run_folder(run.id))
                found = evaluate(method.predictor(part.classes, part.template), part.test)
            else:
                mixture = Mixture(run.recipe["transfer"]["kind"], target, teacher)
                found = mixture.scores(part.test, part.template)
            assert result.scores[want.key].accuracy == found.accuracy


def test_nothing_is_computed_twice_and_a_lost_run_alone_is_made_again(swept: tuple[Plan, Store], place: Path) -> None:
    wanted, store = swept
    results = {file: file.stat().st_mtime_ns for file in (store.folder / "results").iterdir()}
    sweep.run(plan(place), store.folder)
    assert {file: file.stat().st_mtime_ns for file in results} == results
    lost = wanted.runs[5]
    (store.folder / "results" / f"{lost.id}.json").unlink()
    (store.run_folder(lost.id) / "adapter_config.json").unlink()  # as if it had been killed
    before = store.folder / "runs"
    teacher = (before / wanted.runs[1].id / "steps.jsonl").stat().st_mtime_ns
    sweep.run(wanted, store.folder)
    assert (
        store.read(lost.id) is not None and (before / wanted.runs[1].id / "steps.jsonl").stat().st_mtime_ns == teacher
    )
    changed = {file for file, time in results.items() if file.exists() and file.stat().st_mtime_ns != time}
    assert {file.stem for file in changed} == {lost.id}


def test_a_way_trains_its_teacher_where_it_is_not_there(place: Path, tmp_path: Path) -> None:
    whole = plan(place, direct=False)
    alone = whole.model_copy(update={"runs": (whole.runs[2],)})  # EFT
    sweep.run(alone, tmp_path)
    assert (tmp_path / "runs" / whole.runs[1].id / "adapter_config.json").is_file()
    assert not Grid.read(alone, Store(tmp_path)).open


def test_a_teacher_that_fails_is_said_and_stops_nothing_else(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = runs.fit

    def fail(method: Any, *rest: Any, **options: Any) -> Any:
        if method.name == "rmadapter":
            raise ra.UserError("it burns")
        return original(method, *rest, **options)

    monkeypatch.setattr(runs, "fit", fail)
    wanted = plan(place, direct=False)
    sweep.run(wanted, tmp_path)
    grid = Grid.read(wanted, Store(tmp_path))
    assert [run.label for run, _ in grid.failed] == [run.label for run in wanted.runs[1:]]
    assert {why for _, why in grid.failed} == {"it burns"} and "zero_shot on" in markdown(grid)


def test_a_teacher_that_is_bound_to_its_classes(place: Path, tmp_path: Path) -> None:
    """Novel classes are asked of the blind nets alone, which can say something of them."""
    wanted = plan(place, method="linear_probe")
    sweep.run(wanted, tmp_path)
    grid = Grid.read(wanted, Store(tmp_path))
    assert not grid.open and not any("names known" in run.label for run in wanted.runs)
    asked = {run.label.split()[0]: [want.role for want in run.wanted] for run in wanted.runs}
    both = ["base", "novel"]
    assert asked == {
        **{name: ["base"] for name in ("linear_probe", "EFT", "ensemble")},
        **dict.fromkeys(("zero_shot", "transmiter", "transmiter+"), both),
    }


def test_rows_of_two_backbones_are_two(place: Path) -> None:
    here = plan(place)
    for other in (plan(place, to="pictoclip-s"), plan(place, common={"backbone": "pictoclip-m"})):
        shared = {run.label for run in here.runs} & {run.label for run in other.runs}
        ids = [{run.id for run in each.runs if run.label in shared} for each in (here, other)]
        assert ids[0] == ids[1] and len(shared) == (1 if other.runs[0].recipe["backbone"] == "pictoclip-s" else 2)


def test_what_decides_a_way(place: Path, tmp_path: Path) -> None:
    """The names in a list, wherever it lies; of training what the supervised step reads."""

    def ids(**changes: Any) -> list[str]:
        teacher, net = (
            arms(["rmadapter"], {}, TRAIN)[0],
            arms(["transmiter"], {**NET, **changes.pop("method", {})}, {})[0],
        )
        net = Arm(net.label, {**net.changes, **changes})
        runs = ways.plan([teacher], [net], [], to=str(place / "clip"), data=[str(place / "plants")]).runs
        return [run.id for run in runs[-4:]]  # plain, plus; known, then blind

    names = [f"thing {i}" for i in range(20)]
    for name, content in {"a": names, "b": names, "c": names[1:]}.items():
        (tmp_path / name).write_text("\n".join(content))
    a, b, c = (ids(method={"auxiliary": str(tmp_path / name)}) for name in "abc")
    assert a == b and not set(a) & {*c, *ids()}
    slow = ids(train={"lr": 0.5})
    assert slow[::2] == ids()[::2] and not {*slow[1::2]} & {*ids()[1::2]}
    with pytest.raises(DataError, match="is not a readable list of names"):
        ids(method={"auxiliary": str(tmp_path / "none")})
    with pytest.raises(SettingError, match="without augmentation"):
        ids(train={"augment": "crop_flip"})
    with pytest.raises(SettingError, match="leave out novel"):
        ids(method={"novel": "blind"})


def test_nets_with_several_settings(place: Path, tmp_path: Path) -> None:
    """Mixtures stand there once, and another rate has no second row without the supervised step."""
    file = tmp_path / "nets.toml"
    file.write_text(
        """
        [[arms]]
        method = {name = "transmiter"}
        grid = {"method.ridge" = [50.0, 500.0]}
        [[arms]]
        label = "fast"
        method = {name = "transmiter", ridge = 500.0}
        train = {lr = 0.01}
        """
    )
    where = {"to": str(place / "clip"), "data": [str(place / "plants")]}
    runs = ways.plan(arms(["rmadapter"], {}, TRAIN), read(file), [], **where).runs
    labels = [run.label.replace(str(place / "clip"), "clip").partition(" from ")[0] for run in runs[4:]]
    assert [run.recipe["transfer"]["kind"] for run in runs[2:4]] == ["eft", "ensemble"]
    whole = [f"transmiter{plus} ridge={ridge}" for ridge in (50.0, 500.0) for plus in ("", "+", "", "+")]
    assert labels == [*whole, "fast+", "fast+"] and len({run.id for run in runs}) == len(runs)
    with pytest.raises(SettingError, match="does not carry over"):
        ways.plan(arms(["rmadapter"], {}, TRAIN), arms(["rmadapter"], {}, TRAIN), [], **where)


def test_the_tables_say_which_setting_is_which(swept: tuple[Plan, Store], place: Path) -> None:
    text = command("report", place / "sweep").stdout
    assert text.startswith("# transfer\n") and "names known: " in text and "blind: " in text
    assert "## cost beside the target's own" in text and "million operations added an image" in text
    cost = text.split("## cost")[1].split("names known:")[0]
    assert "EFT with rmadapter of pictoclip-s" in cost and "zero_shot" not in cost and "**" not in cost
    rows = list(csv.DictReader(io.StringIO(command("report", place / "sweep", "--format", "csv").stdout)))
    found = {row["method"].replace(str(place / "clip"), "clip") for row in rows}
    assert found == set(LABELS) and {row["role"] for row in rows} == {"base", "novel"}


def test_the_page_has_what_the_tables_have(swept: tuple[Plan, Store], place: Path, tmp_path: Path) -> None:
    result = command("report", place / "sweep", "--format", "html", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "names known: " in text and "million operations added an image" in text and "HM" in text
    assert "Holm" in text and "transfer.teacher.data" not in text and "transfer.from" not in text
    both = overview([Grid.read(*swept), Grid.read(swept[0].model_copy(update={"protocol": "base-to-novel"}), swept[1])])
    assert both.columns == ("transfer base", "transfer novel", "transfer HM", "base", "novel", "HM")


def test_bench_takes_it(place: Path, swept: tuple[Plan, Store]) -> None:
    """The same grid as typed, with what was changed in the labels; so nothing is computed again."""
    before = {file: file.stat().st_mtime_ns for file in (place / "sweep" / "results").iterdir()}
    settings = [
        "--method.dimension",
        8,
        "--method.extraction-epochs",
        2,
        "--train.augment",
        "none",
        "--method.rank",
        32,
    ]
    result = command(
        *("bench", "transfer", "--methods", "rmadapter", "--direct", "rmadapter"),
        *("--to", place / "clip", "--data", place / "plants"),
        *("--seeds", 1, "--out", place / "sweep", *settings, "--train.epochs", 1, "--train.batch-size", 4),
    )
    assert result.exit_code == 0, result.output
    assert "transmiter dimension=8 extraction_epochs=2" in result.stdout and "names known: " in result.stdout
    assert {file: file.stat().st_mtime_ns for file in (place / "sweep" / "results").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transfer"], "transfer needs --to"),
        (["base-to-novel", "--to", "pictoclip-s"], "--to belongs to transfer"),
        (["transfer", "--to", "pictoclip-s", "--source", "pictograms/wide"], "transfer has no --source"),
        (["transfer", "--to", "pictoclip-s", "--arms", "none.toml"], "there is no experiment"),
        (["transfer", "--to", "pictoclip-s", "--arms", "none.toml", "--method.ridge", "1"], "write them into its file"),
        (["transfer", "--to", "pictoclip-x"], "unknown backbone"),
        (["transfer", "--to", "pictoclip-s", "--methods", ","], "no methods are named"),
        (["transfer", "--to", "pictoclip-s", "--direct", "rmadaptr"], "did you mean 'rmadapter'"),
        (["transfer", "--to", "pictoclip-s", "--method.ridge", "-1"], "ridge is not valid"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = command("bench", *arguments, "--out", tmp_path / "sweep")
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "sweep").exists()
