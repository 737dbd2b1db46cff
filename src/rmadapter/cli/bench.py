"""rmadapter bench and rmadapter report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from rmadapter.cli.options import (
    GO_ON,
    GroupedCommand,
    device_option,
    peek,
    root_option,
    say_small,
    setting_options,
    split_list,
)
from rmadapter.errors import UserError

COMMON = ("backbone", "pretrained", "split_seed", "skip_broken", "template", "test_on")
"""Keys of a recipe that all runs of a sweep share."""


class BenchCommand(GroupedCommand):
    """A command whose options are the settings of all methods that are compared."""

    def sections(self, args: list[str]) -> dict[str, list[click.Option]]:
        from rmadapter.methods import method_class
        from rmadapter.recipe import Recipe, resolve
        from rmadapter.train import TrainSettings

        common = {key: value for key, value in resolve(None, {}).model_dump().items() if key in COMMON}
        found = {"What all runs share": setting_options(Recipe, "", common)}
        taken: set[str] = set()
        named = split_list(peek(args, "--methods") or "zero_shot,rmadapter") + _direct(peek(args, "--direct") or "")
        for name in dict.fromkeys([*named, *(["transmiter"] if peek(args, "--to") else [])]):
            settings = method_class(name).Settings
            own = {key: "recipe's" for key in settings.model_fields if key not in taken}
            taken.update(own)
            found[f"Settings of {name}"] = setting_options(settings, "method.", own)
        train = dict.fromkeys(TrainSettings.model_fields, "recipe's")
        return {**found, "Training": setting_options(TrainSettings, "train.", train)}


@click.command(cls=BenchCommand)
@click.argument("protocol")
@click.option("--methods", default="zero_shot,rmadapter", show_default=True, help="Names, separated by commas.")
@click.option(
    "--arms",
    "experiment",
    type=click.Path(path_type=Path),
    help="In place of --methods: a TOML file with [[arms]], methods with settings and grids of them. Of transfer: what "
    "carries over, in place of transmiter's settings.",
)
@click.option(
    "--data",
    default="pictograms",
    show_default=True,
    help="Tasks or folders by commas; or pictograms: the ten themes (where one is trained on: the wide task, and with "
    "it the themes or its domains); or public: the 11 data sets (domain-generalization: ImageNet and its variants).",
)
@click.option("--source", help="What to train on, where the rest is only tested on; default: the first of --data.")
@click.option("--to", help="Of transfer: the backbone that --methods are carried over to.")
@click.option("--to-pretrained", default="default", show_default=True, help="Its weights, as --pretrained.")
@click.option(
    "--direct", help="Of transfer: methods to train on that backbone itself, or none; default: those of --methods."
)
@click.option("--seeds", default="1,2,3", show_default=True, help="Whole numbers, separated by commas.")
@click.option("--shots", help="Images a class; default: the protocol's own, 16 or 1,2,4,8,16.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The sweep's folder, new or its own.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes side by side.")
@root_option
@device_option
def bench(
    protocol: str,
    methods: str,
    experiment: Path | None,
    data: str,
    source: str | None,
    to: str | None,
    to_pretrained: str,
    direct: str | None,
    seeds: str,
    shots: str | None,
    out: Path,
    jobs: int,
    device: str,
    **options: Any,
) -> None:
    """Run a protocol over methods, tasks and seeds.

    base-to-novel, cross-dataset, domain-generalization, few-shot; transfer trains --methods on --backbone, and compares
    ways to use them on the backbone --to with what is trained there.

    The same command again goes on where it stopped: finished runs are not repeated, failed ones are. Several may work
    on one folder at once.
    """
    from rmadapter import arms, sweep, ways
    from rmadapter.cli.options import changes_of
    from rmadapter.methods import method_class
    from rmadapter.recipe import Recipe
    from rmadapter.run import device_of

    changes = changes_of(options)
    settings, train = changes.pop("method"), changes.pop("train")
    grid: dict[str, Any] = {
        "data": split_list(data),
        "seeds": numbers("--seeds", seeds, least=0),
        "shots": () if shots is None else numbers("--shots", shots, least=1),
        "common": changes,
        "device": device_of(device),
    }
    _check_target(protocol, to, source)
    say_small(changes.get("backbone", Recipe.model_fields["backbone"].default), grid["data"])
    if to is None:
        plan = sweep.plan(protocol, _arms(methods, experiment, settings, train), source=source, **grid)
    else:
        names, own = split_list(methods), _direct(methods if direct is None else direct)
        made = arms.arms(names and [*names, *own, "transmiter"], settings, train)
        its = {key: value for key, value in settings.items() if key in method_class("transmiter").Settings.model_fields}
        if experiment is not None and its:
            raise click.UsageError("--arms has transmiter's settings: write them into its file")
        nets = arms.read(experiment) if experiment else arms.arms(["transmiter"], its, {})  # --train is for the others
        weights = None if to_pretrained.lower() == "none" else to_pretrained
        plan = ways.plan(made[: len(names)], nets, made[len(names) : -1], to=to, pretrained=weights, **grid)
    complain(compute(plan, out, jobs, device_of(device)))


def _direct(text: str) -> list[str]:
    return [] if text.strip().lower() == "none" else split_list(text)


def _check_target(protocol: str, to: str | None, source: str | None) -> None:
    from rmadapter import protocols

    two = protocols.protocol(protocol).two_backbones
    if two and to is None:
        raise click.UsageError(f"{protocol} needs --to, the backbone to carry over to")
    if not two and to is not None:
        raise click.UsageError(f"{protocol} trains on one backbone: --to belongs to transfer")
    if two and source is not None:
        raise click.UsageError(f"{protocol} has no --source: each task is trained on")


def _arms(methods: str, experiment: Path | None, method: dict[str, Any], train: dict[str, Any]) -> list[Any]:
    from rmadapter import arms

    if experiment is None:
        return arms.arms(split_list(methods), method, train)
    chosen = click.get_current_context().get_parameter_source("methods")
    if method or train or chosen is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--arms has the methods and their settings: write them into its file")
    return arms.read(experiment)


def compute(plan: Any, out: Path, jobs: int, device: str) -> Any:
    """Run a plan and print its tables and its time; returns the grid."""
    from rmadapter import sweep, tables
    from rmadapter.live import watching
    from rmadapter.store import Store

    context = click.get_current_context()
    context.meta[GO_ON] = lambda: "the same command; what is finished is kept"
    store, begun = Store(out), time.perf_counter()
    with watching(plan, store, jobs) as watch:
        sweep.run(plan, out, jobs=jobs, device=device, watch=watch)
    grid = tables.Grid.read(plan, store)
    click.echo(tables.markdown(grid))
    parts: dict[str, float] = {}
    for result in grid.results.values():
        for key, value in (result.seconds if result else {}).items():
            parts[key] = parts.get(key, 0.0) + value
    split = ", ".join(f"{key} {value:.0f} s" for key, value in parts.items())
    click.echo(f"{time.perf_counter() - begun:.0f} s now; all runs of this plan, summed over processes: {split}")
    click.echo(f"store: {out}; tables again by: rmadapter report {out}")
    return grid


def complain(grid: Any) -> None:
    """Raise UserError where runs failed."""
    failed, all_runs = len(grid.open), len(grid.plan.runs)
    if failed:
        raise UserError(f"{failed} of {all_runs} runs failed", remedy="the same command tries them again")


def numbers(option: str, text: str, least: int) -> list[int]:
    """'1, 2' as [1, 2]. Raises click.BadParameter for anything else, none at all, or a number below ``least``."""
    try:
        found = [int(part) for part in split_list(text)]
    except ValueError:
        found = []
    if not found:
        raise click.BadParameter(f"{option} takes whole numbers separated by commas, not {text!r}")
    if min(found) < least:
        raise click.BadParameter(f"{option}: {min(found)} is below {least}")
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="md",
    show_default=True,
    type=click.Choice(["md", "csv", "html"]),
    help="md: tables; csv: a row a score, in percent; html: one page.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file to write; default: print.")
@click.option("--baseline", help="html: the method that others are compared with; default: zero_shot.")
@click.option(
    "--plots", type=click.Path(path_type=Path), help="html: a folder for PNG and SVG files; default: beside --out."
)
def report(folder: Path, form: str, out: Path | None, baseline: str | None, plots: Path | None) -> None:
    """Print the tables of a sweep from its store; or make one page of them with plots and tests (html)."""
    from rmadapter.files import write_text
    from rmadapter.store import Store

    if out is not None and not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent} to write into", remedy="make it, or name another")
    store = Store(folder)
    if form == "html":
        text = _page(store, out, baseline, plots)
    elif baseline is not None or plots is not None:
        raise click.UsageError("--baseline and --plots go with --format html")
    else:
        text = _tables(store, form)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)


def _page(store: Any, out: Path | None, baseline: str | None, plots: Path | None) -> str:
    """The page, after its plots' files, and a line that says where they are."""
    from rmadapter import page

    plots = plots or (out and out.with_name(f"{out.stem}-plots"))
    made = page.render(store, baseline, plots)
    if plots is not None:
        click.echo(f"{len(made.plots)} plots as PNG and SVG: {plots}", err=True)
    return made.html


def _tables(store: Any, form: str) -> str:
    from rmadapter import tables

    grids = [tables.Grid.read(plan, store) for plan in store.plans()]
    if form == "md":
        return "\n".join(tables.markdown(grid) for grid in grids)
    head, *rest = (tables.as_csv(grid) for grid in grids)
    return head + "".join(text.partition("\n")[2] for text in rest)
