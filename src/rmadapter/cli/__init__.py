"""The command line: a file a command, and each command calls one function of the package.

Modules that import torch are imported inside the commands, so that ``rmadapter --help`` is quick.
"""

from __future__ import annotations

import io
import signal
import sys
import warnings
from typing import Any

import click

from rmadapter import __version__, allocator
from rmadapter.cli import bench, data, demo, evaluate, listing, predict, reproduce, tasks, train, transfer
from rmadapter.cli.options import GO_ON
from rmadapter.errors import UserError


class Terminated(KeyboardInterrupt):
    """SIGTERM, which cluster schedulers and containers send: as orderly a stop as Ctrl-C."""


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
        except KeyboardInterrupt as stop:
            again = f"; go on with: {ctx.meta[GO_ON]()}" if GO_ON in ctx.meta else ""
            click.echo(f"interrupted{again}", err=True)
            ctx.exit(143 if isinstance(stop, Terminated) else 130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def cli(debug: bool) -> None:
    """Teach a frozen CLIP new classes from a handful of images, without making it forget the rest.

    Start with: rmadapter demo
    """


for command in (
    demo.demo,
    train.train,
    transfer.transfer,
    evaluate.evaluate,
    predict.predict,
    bench.bench,
    bench.report,
    reproduce.reproduce,
    listing.list_,
    tasks.tasks,
    data.data,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the ``rmadapter`` command."""
    warnings.showwarning = _note
    # Photos of 89 to 178 megapixels are opened; what is larger is an error that names the file.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file name that is not UTF-8 goes out as it came in
    signal.signal(signal.SIGTERM, _terminate)
    allocator.keep_freed()
    cli.main(windows_expand_args=False)


def _terminate(*_: object) -> None:
    raise Terminated


def _note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """A warning as a user reads it, without the place in the code."""
    click.echo(f"note: {message}", err=True)
