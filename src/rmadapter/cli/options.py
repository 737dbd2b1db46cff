"""Options that several commands share, and those that are generated from settings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

GO_ON = "rmadapter.go_on"
"""Key in click's meta: a function that says which command goes on with what was interrupted."""
BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")
"""What the value of a boolean option may be."""

device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, mps, or auto: the fastest."
)


def _use_root(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    """For the length of a command the option is the environment variable, which a sweep's processes inherit."""
    if value is None:
        return
    from rmadapter.data.public import ROOT  # here: it takes a while

    before = os.environ.get(ROOT)
    os.environ[ROOT] = str(value)
    ctx.call_on_close(lambda: os.environ.pop(ROOT) if before is None else os.environ.update({ROOT: before}))


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    callback=_use_root,
    expose_value=False,
    is_eager=True,
    help="The folder that holds the public data sets; default: the environment variable RMADAPTER_DATA.",
)
run_argument = click.argument("run", type=click.Path(path_type=Path))


class GroupedCommand(click.Command):
    """A command with options that are generated from settings once its arguments are known, shown in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Options are shown with dashes, and taken with underscores too, as recipes write them.
        self.context_settings["token_normalize_func"] = lambda name: name.replace("_", "-")
        self.own: list[click.Parameter] = list(self.params)
        self.groups: dict[str, list[click.Option]] = {}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        self.groups = self.sections(args)
        made = [option for group in self.groups.values() for option in group]
        self.params = [*self.own, *made]
        return super().make_context(info_name, _flags_alone(args, made), parent, **extra)

    def sections(self, args: list[str]) -> dict[str, list[click.Option]]:
        """Titles and options; the arguments are not parsed yet, so look into them with ``peek``."""
        raise NotImplementedError

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [*self.own, *filter(None, [self.get_help_option(ctx)])]
        sections: dict[str, Sequence[click.Parameter]] = {"Command": own, **self.groups}
        for title, options in sections.items():
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class RecipeCommand(GroupedCommand):
    """A command whose options are the fields of Recipe, of TrainSettings, and of the chosen method's settings."""

    def sections(self, args: list[str]) -> dict[str, list[click.Option]]:
        from rmadapter.methods import method_class
        from rmadapter.recipe import Recipe, resolve
        from rmadapter.train import TrainSettings

        # The method decides which options there are, so it is looked up before the rest is parsed.
        name = peek(args, "--method")
        known: dict[str, Any] = {"method": {"name": name}} if name else {}
        known |= {key: given for key in ("backbone", "data") if (given := peek(args, f"--{key}"))}
        resolved = _resumed(args) or resolve(peek(args, "--recipe"), known)
        shown = resolved.model_dump()
        top = {key: value for key, value in shown.items() if key not in ("method_settings", "train")}
        settings = method_class(resolved.method).Settings
        return {
            "What to train on": setting_options(Recipe, "", top),
            f"Settings of {resolved.method}": setting_options(settings, "method.", resolved.method_settings),
            "Training": setting_options(TrainSettings, "train.", shown["train"]),
        }


def _resumed(args: Sequence[str]) -> Any:
    """The recipe of the run that arguments go on with; None where they start one."""
    from rmadapter import run

    out = Path(peek(args, "--out") or "")
    goes_on = "--resume" in args and peek(args, "--recipe") is None and (out / run.RUN).is_file()
    return run.read_run(out).recipe if goes_on else None


def peek(args: Sequence[str], name: str) -> str | None:
    """The value of an option in arguments that are not parsed yet."""
    for index, argument in enumerate(args):
        if argument == name and index + 1 < len(args):
            return args[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _flags_alone(args: Sequence[str], options: Sequence[click.Option]) -> list[str]:
    """Arguments in which a boolean option takes the word behind it only if that is one of ``BOOLEANS``."""
    flags = {name for option in options if option.flag_value == "true" for name in option.opts}
    found = []
    for argument, behind in itertools.pairwise([*args, ""]):
        alone = argument.replace("_", "-") in flags and behind.lower() not in BOOLEANS
        found.append(f"{argument}=true" if alone else argument)
    return found


def split_list(text: str) -> list[str]:
    """'a, b' as ['a', 'b']."""
    return [part.strip() for part in text.split(",") if part.strip()]


def setting_options(settings: Any, prefix: str, values: dict[str, Any]) -> list[click.Option]:
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
        alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if field.annotation is bool else {}
        option = click.Option(
            [f"--{prefix}{name}".replace("_", "-"), f"{prefix}{name}".replace(".", "__")],
            help=f"{field.description} [{_shown(values[name])}]",
            metavar="|".join(str(choice) for choice in choices) if choices else _kind(values[name]),
            **alone,  # --name means true, and --name=false is taken too
        )
        made.append(option)
    return made


def _shown(value: Any) -> str:
    """A default as it would be typed."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(value: Any) -> str:
    return {bool: "[true|false]", int: "N", float: "X"}.get(type(value), "VALUE")


def changes_of(options: dict[str, Any]) -> dict[str, Any]:
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


def say_small(backbone: str, data: Iterable[str]) -> None:
    """A backbone of the small world is of no use for photographs, and is what a command takes that names none."""
    from rmadapter.backbones import backbone_names

    if backbone in backbone_names() and not all(each.startswith("pictograms") for each in data):
        click.echo(f"note: {backbone} has seen pictograms alone; for photographs: --backbone ViT-B-16", err=True)
