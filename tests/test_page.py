"""The report as a page: what it says of a whole store, of one with holes, and of names that are not plain."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rmadapter import page
from rmadapter.errors import DataError
from rmadapter.page.ran import ran
from rmadapter.page.sheets import short
from rmadapter.recipe import resolve
from rmadapter.store import Levels, Plan, Planned, Result, Scored, Store, Wanted
from rmadapter.tables import Grid

HOSTILE = "<script>alert('$x$')</script>"
NEEDS_NO_END = ("meta", "wbr", "path", "use")
KEPT = {"mean_confidence": 70.0, "levels": Levels(images=(0, 20, 30), right=(0, 10, 25), confidence=(0, 0.5, 0.9))}


class Page(HTMLParser):
    """A page's tables, texts and tags; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.text += "" if tag in ("wbr", "span", "b", "a") else " "
        self.addresses += [value or "" for key, value in attrs if key in ("href", "src", "srcset", "action", "data")]
        if tag not in NEEDS_NO_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in NEEDS_NO_END:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in NEEDS_NO_END:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open[-1:] == ["style"] else data


def write(
    store: Store, protocol: str, methods: tuple[str, ...], tasks: tuple[str, ...], shots: tuple[int, ...]
) -> None:
    """Runs of two seeds, all of them done."""
    roles = {"base-to-novel": ("base", "novel"), "few-shot": ("all",)}.get(protocol, ("source", "target"))
    runs = []
    for method in methods:
        for task in tasks if len(roles) == 1 or "base" in roles else tasks[:1]:
            for seed in (1, 2):
                for count in shots:
                    classes = "base" if "base" in roles else "all"
                    where = {"data": task, "shots": count, "seed": seed, "classes": classes}
                    recipe = resolve(None, {"method": {"name": method}, **where}).plain()
                    pairs = [(role, data) for role in roles for data in (tasks[1:] if role == "target" else (task,))]
                    wanted = tuple(
                        Wanted(role=r, data=d, classes=r if r in ("base", "novel") else "all", split=_hash(d))
                        for r, d in pairs
                    )
                    run = Planned(
                        id=_hash(protocol, method, task, seed, count)[:16],
                        label=method,
                        recipe=recipe,
                        backbone=_hash("b"),
                        split=_hash(task),
                        wanted=wanted,
                    )
                    runs.append(run)
                    store.write(_result(run, 50 + 10 * (method != "zero_shot") + count / 4 + seed))
    store.write_plan(Plan(protocol=protocol, runs=tuple(runs)))


def _hash(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


def _result(run: Planned, accuracy: float) -> Result:
    about = {
        "accuracy": accuracy,
        "mean_class_accuracy": accuracy,
        "ece": 4.0,
        "images": 50,
        "classes": 5,
        "seconds": 1,
    }
    return Result(
        id=run.id,
        recipe=run.recipe,
        backbone=run.backbone,
        split=run.split,
        scores={want.key: Scored(data=want.data, split=want.split, **about, **KEPT) for want in run.wanted},
        trained_parameters=109056,
        training={"steps": 600},
        seconds={"setup": 0.5, "train": 20.0, "evaluate": 3.0},
        peak_memory=900.0,
        versions={"python": "3.11", "rmadapter": "0.1.0"},
        machine={"device": "cpu"},
    )


def change(store: Store, protocol: str, number: int, **fields: object) -> Planned:
    """Another result of a protocol's n-th run."""
    (plan,) = [plan for plan in store.plans() if plan.protocol == protocol]
    run = plan.runs[number]
    known = store.read(run.id)
    assert known is not None
    store.write(known.model_copy(update=fields))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str, Path]:
    """Every protocol, all runs done."""
    store = Store(tmp_path_factory.mktemp("sweeps") / "all of it")
    store.create()
    tasks = ("photos/birds", "photos/cars")
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), tasks, (16,))
    write(store, "few-shot", ("zero_shot", "rmadapter"), tasks, (1, 4))
    write(store, "cross-dataset", ("zero_shot", "rmadapter"), tasks, (16,))
    plots = store.folder.parent / "plots"
    return store, page.render(store, plots=plots).html, plots


def test_a_whole_store(whole: tuple[Store, str, Path]) -> None:
    _, html, _ = whole
    found = Page(html)
    text = " ".join(found.text.split())
    for said in (
        "all of it: rmadapter report",
        "base-to-novel 8/8 runs cross-dataset 4/4 runs few-shot 16/16 runs",
        "base, novel, HM (harmonic mean of both): base-to-novel, 16 shots",
        "Differences to zero_shot",
        "with 2 tasks it cannot be below 0.5. So few tasks can show no difference",
        "ECE, percent",
        "109,056",
        "photos/birds, photos/cars",
        "train.updates 600",
        "rmadapter 0.1.0",
    ):
        assert said in text, said
    assert "65.5 ± 0.5" in text and "+10.0" in text  # base of rmadapter: 50 + 10 + 4 + seed; and minus zero_shot's
    assert "Runs are missing" not in text and "What needs" not in text and "–" not in text


def test_nothing_outside_the_page_is_asked_for(whole: tuple[Store, str, Path]) -> None:
    _, html, _ = whole
    found = Page(html)
    assert all(address.startswith("#") for address in found.addresses)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert "//" not in html and "@import" not in html and not re.search(r"url\((?!#)", html)
    style = html.partition("</style>")[0]
    named = set(re.findall(r"var\((--[a-z0-9]+)\)", html))
    for name in named:  # a colour of a plot that the style sheet does not have would be drawn black on black
        assert len(re.findall(rf"{name}: #", style)) == 2, name
    assert {"--s0", "--ink", "--line"} <= named
    assert not re.findall(r"(?:fill|stroke): #(?!000000|ffffff)", html.partition("</style>")[2])


def test_names_of_parts_are_unique_and_their_references_lead_somewhere(whole: tuple[Store, str, Path]) -> None:
    _, html, _ = whole
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(names) == len(set(names))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(names)


def test_every_plot_is_a_file_too(whole: tuple[Store, str, Path]) -> None:
    store, html, plots = whole
    files = {path.name for path in plots.iterdir()}
    assert len(files) == 2 * html.count("<svg")
    assert {"base-to-novel-base-against-novel.png", "few-shot-shots-birds.svg"} <= files
    assert {"base-to-novel-reliability-rmadapter.png", "cross-dataset-difference-targets.svg"} <= files
    for path in plots.iterdir():
        head = path.read_bytes()[:200]
        assert head.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml"), path
    assert page.render(store).html == html  # the same bytes from the same store


def test_holes_and_failures_are_said_beside_every_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), ("birds", "cars"), (16,))
    trace = "Traceback (most recent call last):\n  File …\nRuntimeError: <b>no memory</b>"
    failed = change(store, "base-to-novel", 4, scores={}, error=trace, seconds={}, peak_memory=None)
    lost = store.plans()[0].runs[7]
    (store.folder / "results" / f"{lost.id}.json").unlink()
    html = page.render(store).html
    text = " ".join(Page(html).text.split())
    assert "base-to-novel: 6 of 8 runs are finished, 1 failed" in text
    first = "rmadapter, birds, 16 shots, seed 1 (failed: RuntimeError: <b>no memory</b>)"
    second = "rmadapter, cars, 16 shots, seed 2 (not computed)"
    both = f"2 of 8 runs are missing: {first}; {second}. What needs one of them is –."
    assert text.count(both) == 1 + 3 + 2  # the mean, the three differences, calibration
    assert text.count(f"1 of 4 runs is missing: {first}. What needs it is –.") == 1  # birds
    assert text.count(f"1 of 4 runs is missing: {second}. What needs it is –.") == 1  # cars
    assert "Of finished runs only: 2 of 8 are missing here." in text and "2 of 4" in text
    assert "Not in the plot, since runs are missing: rmadapter." in text
    assert "Not finished: 2 of 8 runs" in text and failed.id in text and lost.id in text and "File …" in text
    assert "<b>no memory" not in html
    mean = html.partition("mean over 2 tasks</h4>")[2].partition("</table>")[0]
    assert re.findall(r">(rmadapter)</th>(?:<td>–</td>){4}", mean) == ["rmadapter"] and "best" not in mean


def test_many_holes_are_counted_by_method(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "few-shot", ("zero_shot", "rmadapter"), ("birds",), (1, 4, 8))
    for number in range(6, 12):
        change(store, "few-shot", number, scores={}, error="it burns" if number < 8 else None)
    text = " ".join(Page(page.render(store).html).text.split())
    assert "6 of 12 runs are missing: rmadapter: 2 failed, 4 not computed. What needs one of them is –." in text
    assert text.count("2 of 4 runs are missing") == 3  # each number of shots has its own difference table
    assert "Not in a plot, since runs are missing: rmadapter (birds)." in text


def plan_again(store: Store, plan: Plan, runs: list[Planned]) -> None:
    """The store's one plan with other runs."""
    (file,) = (store.folder / "plans").iterdir()
    file.unlink()
    store.write_plan(plan.model_copy(update={"runs": tuple(runs)}))


def test_what_was_not_asked_for_and_other_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), ("birds", "cars"), (16,))
    (plan,) = store.plans()
    kept = [
        run for run in plan.runs if run.label == "rmadapter" or (run.recipe["data"], run.recipe["seed"]) == ("birds", 1)
    ]
    plan_again(store, plan, kept)
    text = " ".join(Page(page.render(store).html).text.split())
    assert "Not asked for, so without a mean: zero_shot on cars, 16 shots, seed 1." in text
    assert "mean over seeds 1, 2 (zero_shot: 1 only)" in text


def test_a_baseline_that_was_not_asked_for_what_is_compared(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "cross-dataset", ("zero_shot", "rmadapter"), ("birds", "cars"), (16,))
    (plan,) = store.plans()
    own = [
        run.model_copy(update={"wanted": tuple(want for want in run.wanted if want.role != "target")})
        if run.label == "zero_shot"
        else run
        for run in plan.runs
    ]
    plan_again(store, plan, own)
    text = " ".join(Page(page.render(store, "zero_shot").html).text.split())
    assert "zero_shot was not asked for anything that others are compared by." in text


def test_results_that_are_older_than_levels_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "base-to-novel", ("zero_shot",), ("birds",), (16,))
    for number in (0, 1):
        known = store.read(store.plans()[0].runs[number].id)
        assert known is not None
        old = {k: s.model_copy(update={"mean_confidence": None, "levels": None}) for k, s in known.scores.items()}
        change(store, "base-to-novel", number, scores=old)
    text = " ".join(Page(page.render(store).html).text.split())
    assert "Some results are older than the confidence" in text
    assert "Without a plot, since runs or their levels of confidence are missing: zero_shot." in text
    assert "There is no other method to compare with." in text


def test_names_are_escaped_and_make_plain_files(tmp_path: Path) -> None:
    store = Store(tmp_path / HOSTILE.replace("/", "&"))
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), (f"a/{HOSTILE}", 'a/b"&\x07'), (16,))
    (plan,) = store.plans()
    (file,) = (store.folder / "plans").iterdir()
    file.unlink()
    labels = {"rmadapter": f"rmadapter {HOSTILE}", "zero_shot": "zero_shot"}
    runs = tuple(run.model_copy(update={"label": labels[run.label]}) for run in plan.runs)
    store.write_plan(plan.model_copy(update={"runs": runs}))
    change(store, "base-to-novel", 0, scores={}, error=f"{HOSTILE} failed")
    html = page.render(store, plots=tmp_path / "plots").html
    found = Page(html)
    assert "script" not in found.tags and "<script" not in html
    assert f"rmadapter {HOSTILE}" in found.text and f"{HOSTILE} failed" in found.text
    for path in (tmp_path / "plots").iterdir():
        assert re.fullmatch(r"[A-Za-z0-9._=-]+", path.name), path.name


def test_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no sweep"):
        page.render(Store(tmp_path))


def test_short_names_of_tasks() -> None:
    assert short(["a/b/c", "a/b/d"]) == {"a/b/c": "c", "a/b/d": "d"}
    assert short(["p/wide", "p/wide/mono"]) == {"p/wide": "wide", "p/wide/mono": "wide/mono"}
    assert short(["p/birds"]) == {"p/birds": "birds"} and short(["a/x", "b/x"]) == {"a/x": "a/x", "b/x": "b/x"}


def test_settings_of_single_data_sets_stand_behind_the_usual(tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep")
    store.create()
    write(store, "base-to-novel", ("zero_shot", "rmadapter"), ("a", "b", "c"), (16,))
    (plan,) = store.plans()
    runs = [
        run.model_copy(update={"recipe": {**run.recipe, "train": {**run.recipe["train"], "batch_size": 128}}})
        if (run.label, run.recipe["data"]) == ("rmadapter", "b")
        else run
        for run in plan.runs
    ]
    found = ran(Grid(plan.model_copy(update={"runs": tuple(runs)}), {run.id: None for run in runs}), {"b": "birds"})
    assert dict(dict(found.own)["rmadapter"])["train.batch_size"] == "16; 128 (birds)"
    assert dict(dict(found.own)["zero_shot"])["train.batch_size"] == "16" and "seed" not in dict(found.shared)
