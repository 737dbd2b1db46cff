"""rmadapter bench, report and reproduce, as typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from rmadapter.cli.reproduce import as_published, beside, differences
from rmadapter.data import public_names
from rmadapter.store import Store
from rmadapter.tables import Grid
from trees import every_tree
from typed import run

QUICK = ["--data", "pictograms/plants", "--seeds", "1", "--shots", "1", "--train.epochs", "1"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("sweep") / "sweep"
    return out, run("bench", "few-shot", *QUICK, "--jobs", "2", "--out", out)


def test_bench_prints_its_table_and_its_time(swept: tuple[Path, Result]) -> None:
    out, result = swept
    assert result.exit_code == 0, result.output
    assert "| zero_shot epochs=1 |" in result.stdout and "| rmadapter epochs=1 |" in result.stdout
    assert "setup" in result.stdout and "evaluate" in result.stdout and str(out) in result.stdout
    assert "2/2" in result.stderr and "left" in result.stderr


def test_report_prints_the_same_from_the_store(swept: tuple[Path, Result]) -> None:
    out, result = swept
    table = run("report", out)
    assert table.exit_code == 0 and table.stdout.strip() in result.stdout
    rows = list(csv.DictReader(io.StringIO(run("report", out, "--format", "csv").stdout)))
    assert [row["method"] for row in rows] == ["zero_shot epochs=1", "rmadapter epochs=1"]
    assert all(0 < float(row["accuracy"]) < 100 for row in rows)


def test_report_as_a_page(swept: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = swept
    made = run("report", out, "--format", "html", "--out", tmp_path / "report.html")
    assert made.exit_code == 0 and "plots as PNG and SVG" in made.stderr and not made.stdout, made.output
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Differences to zero_shot epochs=1" in html and "<svg" in html
    files = sorted(path.name for path in (tmp_path / "report-plots").iterdir())
    assert "few-shot-shots-plants.png" in files and "few-shot-shots-plants.svg" in files
    here = run("report", out, "--format", "html", "--baseline", "rmadapter epochs=1")
    assert here.exit_code == 0 and "Differences to rmadapter epochs=1" in here.stdout
    run("report", out, "--out", tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == run("report", out).stdout
    for arguments, message in [
        (["--format", "html", "--baseline", "rmadapter"], "did you mean 'rmadapter epochs=1'"),
        (["--baseline", "zero_shot"], "go with --format html"),
        (["--format", "html", "--plots", tmp_path / "report.html"], "is a file, and a folder is needed"),
        (["--format", "html", "--out", tmp_path / "nowhere" / "report.html"], "there is no folder"),
    ]:
        refused = run("report", out, *arguments)
        assert refused.exit_code == 2 and message in refused.stderr, refused.output


def test_results_keep_their_levels_of_confidence(swept: tuple[Path, Result]) -> None:
    out, _ = swept
    for file in (out / "results").iterdir():
        (score,) = json.loads(file.read_text(encoding="utf-8"))["scores"].values()
        images, right, sure = (score["levels"][key] for key in ("images", "right", "confidence"))
        assert len(images) == 15 and sum(images) == score["images"]
        assert 100 * sum(right) / sum(images) == pytest.approx(score["accuracy"])
        mean = 100 * sum(n * c for n, c in zip(images, sure, strict=True)) / sum(images)
        assert mean == pytest.approx(score["mean_confidence"], abs=1e-3)
        gaps = [abs(r - n * c) for n, r, c in zip(images, right, sure, strict=True)]
        assert 100 * sum(gaps) / sum(images) == pytest.approx(score["ece"], abs=1e-3)


def test_the_same_command_computes_nothing_twice(swept: tuple[Path, Result]) -> None:
    out, _ = swept
    before = {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    result = run("bench", "few-shot", *QUICK, "--out", out)
    assert result.exit_code == 0 and {file: file.stat().st_mtime_ns for file in before} == before


def test_reproduce_prints_published_beside_measured(tmp_path: Path) -> None:
    result = run(
        *("reproduce", "zero_shot/base-to-novel", "--data", "pictograms/plants", "--seeds", "1", "--out", tmp_path),
        *("--template", "a drawing of a {}."),
    )
    assert result.exit_code == 0, result.output
    assert "mean over 1 tasks" in result.stdout and "published" in result.stdout
    assert "Measured: pictoclip-s (default); pictograms/plants; 16 shots; seeds 1;" in result.stdout
    assert {run.recipe["template"] for run in Store(tmp_path).plans()[0].runs} == {"a drawing of a {}."}
    result = run("reproduce", "rmadapter/base-to-novl", "--out", tmp_path)
    assert result.exit_code == 2 and "did you mean 'base-to-novel'" in result.stderr
    result = run("reproduce", "maple/cross-dataset", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "quotes no numbers for cross-dataset" in result.stderr
    assert "maple/base-to-novel" in result.stderr and not (tmp_path / "none").exists()


def test_what_cannot_be_the_same_is_always_said() -> None:
    from rmadapter.recipes import published
    from test_tables import grid as made

    def said(protocol: str, *wanted: object) -> str:
        found = made(protocol, *wanted)  # type: ignore[arg-type]
        about = {"backbone": "ViT-B-16", "pretrained": "default"}
        runs = tuple(run.model_copy(update={"recipe": {**run.recipe, **about}}) for run in found.plan.runs)
        grid = Grid(found.plan.model_copy(update={"runs": runs}), found.results)
        return beside(grid, published("mma", protocol))

    text = said("base-to-novel", ("base", "novel"), {("mma", "t1", 1): (50, 60)})
    assert "Known to differ, whatever is given: mixed precision there, float32 here." in text
    text = said("cross-dataset", ("source", "target a", "target b"), {("mma", "imagenet", 1): (70, 60, 64)})
    assert "|  | mean of targets |" in text and "| published | 66.6 |" in text and "| measured | 62.0 |" in text
    assert "Not the same in both: data." in text, "t1 and the like are not public"


@pytest.mark.filterwarnings("ignore:.*is not as published")
def test_the_public_path_over_all_eleven_layouts(tmp_path: Path) -> None:
    every_tree(tmp_path / "data")
    result = run(
        *("bench", "base-to-novel", "--data", "public", "--root", tmp_path / "data", "--seeds", "1"),
        *("--train.epochs", "1", "--out", tmp_path / "sweep"),
    )
    assert result.exit_code == 0, result.output
    assert len(Store(tmp_path / "sweep").plans()[0].runs) == 22
    again = run("report", tmp_path / "sweep", "--format", "csv")
    assert {name for name in public_names() if name in again.stdout} == set(public_names())
    store = Store(tmp_path / "sweep")
    grid = Grid.read(store.plans()[0], store)
    assert "Not the same in both: data." in beside(grid, {"base": 1.0, "setting": "pictoclip-s, 11 data sets"})


def test_published_and_measured_stand_in_one_table() -> None:
    from test_tables import base_to_novel

    found = base_to_novel({("x", "t1", 1): (50, 60), ("x", "t1", 2): (70, 60)})
    recipe = {"backbone": "ViT-B-16", "pretrained": "default"}
    runs = tuple(run.model_copy(update={"recipe": {**run.recipe, **recipe}}) for run in found.plan.runs)
    grid = Grid(found.plan.model_copy(update={"runs": runs}), found.results)
    setting = "ViT-B/16, 11 data sets, 16 shots, 2 seeds; HM of the means"
    text = beside(grid, {"base": 84.52, "novel": 77.36, "hm": 80.62, "setting": setting})
    assert "|  | base | novel | HM of means |\n" in text
    assert (
        "| published | 84.5 | 77.4 | 80.6 |\n" in text
        and "| measured | 60.0 ± 10.0 | 60.0 ± 0.0 | 59.6 ± 5.0 |" in text
    )
    assert f"Published, not measured here: {setting}\n" in text
    assert "Measured: ViT-B-16 (default); t1; 16 shots; seeds 1, 2; mean ± standard error over seeds" in text
    assert "Not the same in both: data." in text
    assert "Not the same in both: data." in beside(grid, {"base": 1.0, "setting": "ViT-B/16"})
    same = {"data": ["public/dtd"], "seeds": [1, 2], "shots": [16], "prompts": set[str](), "whole": True}
    assert differences({**recipe, "weights": "default", **same}, "ViT-B/16, 16 shots, 2 seeds") == []


def test_data_are_the_published_ones_by_their_numbers() -> None:
    """Oxford Pets has 37 classes and 3,669 test images, in two halves; other data are not what was published."""

    def grid(*halves: tuple[int, int], data: str = "public/oxford_pets") -> Any:
        scores = [SimpleNamespace(data=data, split=str(i), classes=c, images=n) for i, (c, n) in enumerate(halves)]
        results = [SimpleNamespace(scores=dict(enumerate(scores)))] * 2  # two seeds of one split
        return SimpleNamespace(results={**dict(enumerate(results)), "missing": None}, distinct=lambda _: [data])

    assert as_published(grid((19, 1881), (18, 1788))) and as_published(grid((37, 3669)))
    assert not as_published(grid((19, 1881), (18, 1787))) and not as_published(grid((19, 1881)))
    assert not as_published(grid((3, 5), data="photos"))
    assert as_published(grid((200, 7500), data="public/imagenet_a"))


@pytest.mark.parametrize(
    ("data", "template", "differ"),
    [
        ("public/caltech101", None, False),
        ("public/dtd", None, True),
        ("public/dtd", "a photo of a {}.", False),
        ("public/caltech101", "{}", True),
    ],
)
def test_other_prompts_than_the_published_are_told(data: str, template: str | None, differ: bool) -> None:
    from rmadapter.recipes import published
    from test_tables import base_to_novel

    found = base_to_novel({("coop", data, 1): (50, 60)})
    recipe = {"backbone": "ViT-B-16", "pretrained": "default", "template": template}
    runs = tuple(run.model_copy(update={"recipe": {**run.recipe, **recipe}}) for run in found.plan.runs)
    grid = Grid(found.plan.model_copy(update={"runs": runs}), found.results)
    prompts = "data, seeds, prompts" if differ else "data, seeds"
    assert f"Not the same in both: {prompts}." in beside(grid, published("coop", "base-to-novel"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base-to-nvel"], "did you mean 'base-to-novel'"),
        (["few-shot", "--methods", "zero_shot,rmadaptr"], "did you mean 'rmadapter'"),
        (["few-shot", "--method.rank", "-3"], "rank is not valid"),
        (["few-shot", "--method.rnk", "3"], "--method.rank"),
        (["few-shot", "--data", "nowhere"], "there is no task, no folder and no file 'nowhere'"),
        (["few-shot", "--seeds", "one"], "whole numbers"),
        (["few-shot", "--seeds", ","], "whole numbers"),
        (["few-shot", "--shots", ","], "whole numbers"),
        (["few-shot", "--data", ","], "no data are named"),
        (["cross-dataset", "--data", ","], "no data are named"),
        (["few-shot", "--methods", ","], "no methods are named"),
        (["few-shot", "--seeds", "-1"], "below 0"),
        (["few-shot", "--shots", "0"], "below 1"),
        (["few-shot", "--source", "pictograms/wide"], "has no source"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run("bench", *arguments, "--out", tmp_path / "sweep")
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "sweep").exists()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    result = run("bench", "few-shot", *QUICK, "--out", tmp_path / "notes.txt")
    assert result.exit_code == 2 and "cannot use" in result.stderr, result.output


def test_a_folder_without_a_sweep(tmp_path: Path) -> None:
    result = run("report", tmp_path)
    assert result.exit_code == 2 and "holds no sweep" in result.stderr


def test_help_shows_the_settings_of_all_methods() -> None:
    text = " ".join(run("bench", "--methods", "zero_shot,rmadapter", "--help").stdout.split())
    assert "--method.rank" in text and "--train.epochs" in text and "--jobs" in text and "--seed " not in text
