"""rmadapter evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rmadapter.cli.options import device_option, run_argument


@click.command()
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
    from rmadapter.scoring import evaluate_run

    scores = evaluate_run(run, data=data, classes=classes, device=device)
    if as_json:
        click.echo(json.dumps(scores.summary()))
    else:
        click.echo(str(scores))
