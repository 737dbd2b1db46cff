"""rmadapter evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rmadapter.cli.options import device_option, root_option, run_argument

WORST = 5
"""Classes that are printed."""


@click.command()
@run_argument
@click.option("--data", help="Another task or folder, or where the run's data are now; default: the run's own.")
@click.option(
    "--classes",
    type=click.Choice(["base", "novel", "all"]),
    help="Default: those that were trained on; all of another task.",
)
@click.option(
    "--temperature",
    is_flag=True,
    help="First fit a temperature on the run's validation images; from then on confidences of its classes use it.",
)
@click.option("--skip-broken", is_flag=True, help="Leave out images that are lost or cannot be read.")
@click.option("--no-plots", is_flag=True, help="Write tables only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as JSON; accuracy, confidence and ECE in percent."
)
@root_option
@device_option
def evaluate(
    run: Path,
    data: str | None,
    classes: Any,
    temperature: bool,
    skip_broken: bool,
    no_plots: bool,
    as_json: bool,
    device: str,
) -> None:
    """Test accuracy and calibration of a run, on its own or on another task.

    Tables and pictures go to RUN/evaluation: scores, classes, confusions, predictions, the most confident mistakes.
    ECE is the expected calibration error over 15 bins of confidence, in percent.
    """
    from rmadapter.report import by_class
    from rmadapter.scoring import evaluate_run

    options: dict[str, Any] = {"temperature": temperature, "skip_broken": skip_broken, "plots": not no_plots}
    found = evaluate_run(run, data=data, classes=classes, device=device, **options)
    if as_json:
        click.echo(json.dumps(found.summary()))
        return
    click.echo(f"{found.title}: {found.scores}")
    if found.broken:
        click.echo(f"left out: {len(found.broken)} images that are lost or cannot be read (skipped.csv)")
    if found.ece_without is not None:
        fitted = f"fitted on {found.fitted_on} validation images" if found.fitted_on else "fitted earlier"
        before, after = f"{found.ece_without:.2f} % without it", f"{found.scores.ece:.2f} % with it"
        click.echo(f"temperature {found.scores.temperature:.3f}, {fitted}: ECE {before}, {after}")
    seen = [row for row in by_class(found.scores, found.task.classes) if row.images]
    click.echo("worst classes:" if len(seen) > WORST else "classes:")
    for row in seen[:WORST]:
        click.echo(f"  {row}")
    click.echo(f"tables and pictures: {found.folder}" if not no_plots else f"tables: {found.folder}")
