"""The command line: each command calls one function of ``rmadapter.run``.

Modules that import torch are imported inside the commands, so that ``rmadapter --help`` is quick.
"""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import click

from rmadapter import __version__
from rmadapter.errors import UserError


class Commands(click.Group):
    """Prints a user's mistake in plain words and exits with code 2; any other error keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            again = "; go on with: rmadapter train --out RUN --resume" if ctx.invoked_subcommand == "train" else ""
            click.echo(f"interrupted{again}", err=True)
            ctx.exit(130)


class RecipeCommand(click.Command):
    """A command whose options are the fields of Recipe, of TrainSettings, and of the chosen method's settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own: list[click.Parameter] = list(self.params)
        self.groups: dict[str, list[click.Option]] = {}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        from rmadapter.methods import method_class
        from rmadapter.recipe import Recipe, resolve
        from rmadapter.train import TrainSettings

        # The method decides which options there are, so it is looked up before the rest is parsed.
        name, backbone = _peek(args, "--method"), _peek(args, "--backbone")
        known: dict[str, Any] = {"method": {"name": name}} if name else {}
        resolved = resolve(_peek(args, "--recipe"), {**known, **({"backbone": backbone} if backbone else {})})
        shown = resolved.model_dump()
        top = {key: value for key, value in shown.items() if key not in ("method_settings", "train")}
        self.groups = {
            "What to train on": _options(Recipe, "", top),
            f"Settings of {resolved.method}": _options(
                method_class(resolved.method).Settings, "method.", resolved.method_settings
            ),
            "Training": _options(TrainSettings, "train.", shown["train"]),
        }
        self.params = [*self.own, *(option for group in self.groups.values() for option in group)]
        return super().make_context(info_name, args, parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, Sequence[click.Parameter]] = {"Command": self.own, **self.groups}
        for title, options in sections.items():
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _peek(args: Sequence[str], name: str) -> str | None:
    for index, argument in enumerate(args):
        if argument == name and index + 1 < len(args):
            return args[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _options(settings: Any, prefix: str, values: dict[str, Any]) -> list[click.Option]:
    """An option a field: its help is the field's docstring, its default what the recipe says."""
    made = []
    for name, field in settings.model_fields.items():
        if name not in values or (prefix == "train." and name == "seed"):
            continue
        choices = [
            value
            for value in get_args(field.annotation)
            if isinstance(value, str | int) and not isinstance(value, bool)
        ]
        metavar = "|".join(str(choice) for choice in choices) if choices else _kind(values[name])
        default = "none" if values[name] is None else str(values[name])
        option = click.Option(
            [f"--{prefix}{name}", f"{prefix}{name}".replace(".", "__")],
            help=f"{field.description} [{default}]",
            metavar=metavar,
        )
        made.append(option)
    return made


def _kind(value: Any) -> str:
    return {bool: "true|false", int: "N", float: "X"}.get(type(value), "VALUE")


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    """Flags that were given, nested as a recipe is."""
    changes: dict[str, Any] = {"method": {}, "train": {}}
    for key, value in options.items():
        if value is None:
            continue
        table, _, name = key.rpartition("__")
        if key == "method":
            changes["method"]["name"] = value
        elif table:
            changes[table][name] = value
        else:
            changes[key] = value
    return changes


device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, mps, or auto: the fastest."
)
run_argument = click.argument("run", type=click.Path(path_type=Path))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def cli(debug: bool) -> None:
    """Teach a frozen CLIP new classes from a handful of images, without making it forget the rest.

    Start with: rmadapter demo
    """


@cli.command(cls=RecipeCommand)
@click.option("--recipe", help="A shipped recipe (rmadapter/pictograms) or a TOML file; flags go before it.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder, new or empty.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out after an interruption.")
@device_option
def train(recipe: str | None, out: Path, resume: bool, device: str, **options: Any) -> None:
    """Train a method on a task or on a folder of class folders.

    rmadapter train --data photos/ --backbone ViT-B-16 --out runs/photos
    """
    from rmadapter import run
    from rmadapter.data.task import Manifest
    from rmadapter.recipe import resolve

    changes = _changes(options)
    if resume and recipe is None and changes == {"method": {}, "train": {}}:
        resolved = run.read_run(out).recipe
    else:
        resolved = resolve(recipe, changes)
    result = run.train(resolved, out, resume=resume, device=device)
    if result is None:
        click.echo("this run was finished already")
    else:
        click.echo(f"{result.steps} steps in {result.seconds:.0f} s ({result.images_per_second:.0f} images/s)")
    click.echo(f"split: {Manifest.read(out / run.TASK, UserError).note}")
    click.echo(f"adapter, log and split: {out}")
    click.echo(f"next: rmadapter evaluate {out}   or: rmadapter predict {out} IMAGE_OR_FOLDER")


@cli.command()
@run_argument
@click.option("--data", help="Another task or folder, or where the run's data are now; default: the run's own.")
@click.option(
    "--classes",
    type=click.Choice(["base", "novel", "all"]),
    help="Default: those that were trained on; all of another task.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def evaluate(run: Path, data: str | None, classes: Any, as_json: bool, device: str) -> None:
    """Test accuracy of a run, on its own or on another task."""
    from rmadapter import run as runs

    scores = runs.evaluate_run(run, data=data, classes=classes, device=device)
    if as_json:
        click.echo(json.dumps(scores.summary()))
    else:
        click.echo(str(scores))


@cli.command()
@run_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--classes", help="Names to choose from, separated by commas; default: those that were trained on.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Classes to show an image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header: image, error, class_1, probability_1, …")
@device_option
def predict(
    run: Path, images: tuple[Path, ...], classes: str | None, top: int, as_json: bool, as_csv: bool, device: str
) -> None:
    """Predict the class of images: files, or folders of them.

    A file that cannot be read is a row with its error; the rest goes on, and the exit code is 2.
    """
    from dataclasses import asdict

    from rmadapter import run as runs

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    names = [name.strip() for name in classes.split(",")] if classes is not None else None
    table = csv.writer(sys.stdout)
    broken = 0
    for index, prediction in enumerate(runs.predict_run(run, images, classes=names, top=top, device=device)):
        broken += prediction.error is not None
        if as_json:
            click.echo(json.dumps(asdict(prediction), ensure_ascii=False))
        elif as_csv:
            if index == 0:
                pairs = (f"{what}_{rank}" for rank in range(1, top + 1) for what in ("class", "probability"))
                table.writerow(["image", "error", *pairs])
            cells = zip(prediction.classes, prediction.probabilities, strict=True)
            found = [cell for name, p in cells for cell in (name, f"{p:.6f}")]
            table.writerow([prediction.image, prediction.error or "", *found])
        else:
            click.echo(str(prediction))
    if broken:
        raise UserError(f"{broken} of {index + 1} images could not be read")


@cli.command(name="list")
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks", "recipes"]))
def list_(what: str) -> None:
    """List what there is: methods, backbones, tasks or recipes."""
    rows: list[tuple[str, str]]
    if what == "methods":
        from rmadapter.methods import method_class, method_names

        rows = [(name, method_class(name).source) for name in method_names()]
    elif what == "backbones":
        from rmadapter.backbones import backbone_names

        rows = [(name, "inside the package") for name in backbone_names()]
        rows.append(
            ("ViT-B-16, ViT-L-14, …", "any CLIP-shaped open_clip model, with --pretrained TAG (default: openai)")
        )
        rows.append(("hf-hub:owner/model, FOLDER", "open_clip's layout"))
    elif what == "tasks":
        from rmadapter.data import load_task, task_names

        tasks = {name: load_task(name) for name in task_names(domains=True)}
        rows = [(name, f"{len(task.classes):3} classes; {task.note.partition(';')[0]}") for name, task in tasks.items()]
        rows.append(("FOLDER", "class folders, or images with a split.json"))
    else:
        from rmadapter import recipes

        rows = [(name, "") for name in recipes.names()]
    width = max(len(name) for name, _ in rows)
    for name, about in rows:
        click.echo(f"{name:<{width}}  {about}".rstrip())


@cli.command()
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
def export(task: str, folder: Path) -> None:
    """Write a task as PNG files with a split.json, as it would lie on a user's disk."""
    from rmadapter.data import load_task
    from rmadapter.data.export import export_task
    from rmadapter.progress import counter

    found = load_task(task)
    with counter("writing", len(found.train) + len(found.val) + len(found.test)) as count:
        export_task(found, folder, count)
    click.echo(f"{task}: {folder}")


@cli.command()
@click.option(
    "--out", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="A new or empty folder."
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of shots, initial values and order."
)
@device_option
def demo(out: Path, seed: int, device: str) -> None:
    """See RMAdapter learn: 16 shots of pictograms of animals, base to novel, beside zero-shot CLIP."""
    from rmadapter import run

    summary = run.demo(out, seed=seed, device=device)
    click.echo(f"{'percent':<12}{'base':>8}{'novel':>8}{'HM':>8}")
    for name in ("zero_shot", "rmadapter"):
        scores = cast("dict[str, float]", summary[name])
        click.echo(f"{name:<12}{scores['base']:>8.1f}{scores['novel']:>8.1f}{scores['hm']:>8.1f}")
    click.echo(f"{summary['seconds']:.0f} s; trained on {summary['shots']} images a class, tested on scenes never seen")
    click.echo(f"look at {out / 'contact_sheet.png'}, {out / 'summary.json'}; the adapter is in {out / 'run'}")


def main() -> None:
    """Entry point of the ``rmadapter`` command."""
    warnings.showwarning = _note
    cli.main(windows_expand_args=False)


def _note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning as a user reads it, without the place in the code."""
    click.echo(f"note: {message}", err=True)
