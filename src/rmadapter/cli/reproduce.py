"""rmadapter reproduce."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from rmadapter.cli.bench import complain, compute, numbers
from rmadapter.cli.options import device_option, root_option, split_list
from rmadapter.errors import SettingError

QUOTED = {"HM of means": "hm", "mean of targets": "target"}
"""How a recipe calls a column, where it is not the column's name."""


@click.command()
@click.argument("recipe", metavar="METHOD[/PROTOCOL]")
@click.option("--data", default="pictograms", show_default=True, help="As in bench.")
@click.option("--backbone", default="pictoclip-s", show_default=True, help="As in train.")
@click.option("--pretrained", default="default", show_default=True, help="As in train.")
@click.option("--template", help="As in train: the prompt with {} for the class name; default: each task's own.")
@click.option("--seeds", default="1,2,3", show_default=True, help="Whole numbers, separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), help="The sweep's folder; default: reproduce/METHOD.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes side by side.")
@root_option
@device_option
def reproduce(
    recipe: str,
    data: str,
    backbone: str,
    pretrained: str,
    template: str | None,
    seeds: str,
    out: Path | None,
    jobs: int,
    device: str,
) -> None:
    """Run a method on a protocol, such as rmadapter/base-to-novel, and print published beside measured numbers."""
    from rmadapter import sweep
    from rmadapter.arms import arms
    from rmadapter.run import device_of

    method, _, protocol = recipe.partition("/")
    protocol = protocol or "base-to-novel"
    published = _published(method, protocol)
    plan = sweep.plan(
        protocol,
        arms([method], {}, {}),
        data=split_list(data),
        seeds=numbers("--seeds", seeds, least=0),
        common={"backbone": backbone, "pretrained": pretrained, "template": template},
        device=device_of(device),
    )
    grid = compute(plan, out or Path("reproduce") / method, jobs, device_of(device))
    click.echo("\n" + beside(grid, published))
    complain(grid)


def _published(method: str, protocol: str) -> dict[str, Any]:
    """The numbers that a recipe quotes. Raises UserError where it has none, since there is nothing to reproduce."""
    from rmadapter import protocols, recipes
    from rmadapter.methods import method_class, method_names

    method_class(method)
    protocols.protocol(protocol)
    found = recipes.published(method, protocol)
    if not found:
        pairs = [f"{m}/{p}" for m in method_names() for p in protocols.PROTOCOLS if recipes.published(m, p)]
        raise SettingError(
            f"the recipe of {method} quotes no numbers for {protocol}",
            allowed=", ".join(pairs),
            remedy=f"rmadapter bench {protocol} --methods {method} measures it",
        )
    return found


def beside(grid: Any, published: dict[str, Any]) -> str:
    """Published and measured means over tasks in one table, and the setting of each."""
    from rmadapter.tables import Cell, Table, tables

    means = tables(grid)[0]
    quoted = [published.get(QUOTED.get(column, column)) for column in means.columns]
    shown = [i for i, number in enumerate(quoted) if number is not None] or range(len(quoted))
    _, cells = means.rows[0]
    table = Table(
        "published and measured",
        tuple(means.columns[i] for i in shown),
        (
            ("published", tuple(Cell(quoted[i]) for i in shown)),
            ("measured", tuple(cells[i] for i in shown)),
        ),
    )
    measured = _setting(grid)
    said = [
        str(table),
        f"Published, not measured here: {published['setting']}",
        f"Measured: {measured['backbone']} ({measured['weights']}); {', '.join(measured['data'])}; "
        f"{_list(measured['shots'])} shots; seeds {_list(measured['seeds'])}; mean ± standard error over seeds",
    ]
    differ = differences(measured, published["setting"])
    if differ:
        said.append(f"Not the same in both: {', '.join(differ)}. So the numbers are not to be compared.")
    if "differs" in published:
        said.append(f"Known to differ, whatever is given: {published['differs']}.")
    return "\n\n".join(said)


def _setting(grid: Any) -> dict[str, Any]:
    """What was measured on what: a sweep of one method has one backbone."""
    from rmadapter.data import public_names
    from rmadapter.data.catalog import entry

    recipe = grid.plan.runs[0].recipe
    lists = {"data": grid.distinct("data"), "shots": grid.distinct("shots"), "seeds": grid.distinct("seed")}
    own = {entry(str(data)).template for data in lists["data"] if data in public_names()}
    prompts = {recipe["template"]} if recipe.get("template") else own
    measured = {"backbone": recipe["backbone"], "weights": recipe["pretrained"], "prompts": prompts}
    return {**measured, **lists, "whole": as_published(grid)}


def as_published(grid: Any) -> bool:
    """Were public data sets alone used, and has each that was scored as many classes and test images as published?"""
    from rmadapter.data import public_names
    from rmadapter.data.catalog import entry

    parts: dict[str, dict[str, tuple[int, int]]] = {}  # by data set and split: base and novel classes are two
    for result in filter(None, grid.results.values()):
        for score in result.scores.values():
            parts.setdefault(score.data, {})[score.split] = (score.classes, score.images)
    counts = {data: tuple(map(sum, zip(*found.values(), strict=True))) for data, found in parts.items()}
    if {*counts, *map(str, grid.distinct("data"))} - {*public_names(domains=True)}:
        return False
    return all(count == (entry(data).classes, entry(data).test) for data, count in counts.items())


def differences(measured: dict[str, Any], setting: str) -> list[str]:
    """What a published setting says otherwise; what it does not say is not compared, nor are prompts of other data."""
    found = [] if _bare(measured["backbone"]) in _bare(setting) else ["backbone"]
    if measured["weights"] not in ("default", "openai"):
        found.append("weights")
    of = {"data": ("data sets", len(measured["data"])), "seeds": ("seeds", len(measured["seeds"]))}
    of["shots"] = ("shots", max(measured["shots"]))
    for name, (word, number) in of.items():
        said = re.search(rf"(\d+) {word}", setting)
        if said and int(said[1]) != number:
            found.append(name)
    if not measured["whole"] and "data" not in found:
        found.append("data")
    prompt = re.search(r'"([^"]*\{\}[^"]*)"', setting)
    return [*found, "prompts"] if prompt and measured["prompts"] - {prompt[1]} else found


def _bare(name: str) -> str:
    """ViT-B/16 and ViT-B-16 as the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _list(numbers: list[object]) -> str:
    return ", ".join(str(number) for number in numbers)
