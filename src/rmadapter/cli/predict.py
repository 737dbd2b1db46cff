"""rmadapter predict."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import click

from rmadapter.cli.options import device_option, run_argument
from rmadapter.errors import UserError


@click.command()
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

    from rmadapter.prediction import predict_run

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    names = [name.strip() for name in classes.split(",")] if classes is not None else None
    table = csv.writer(sys.stdout)
    broken = 0
    for index, prediction in enumerate(predict_run(run, images, classes=names, top=top, device=device)):
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
