"""rmadapter predict."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rmadapter.cli.options import device_option, run_argument
from rmadapter.errors import UserError
from rmadapter.progress import counter

if TYPE_CHECKING:
    from rmadapter.predictor import Prediction


@click.command()
@run_argument
@click.argument("images", nargs=-1, required=True)
@click.option("--classes", help="Names to choose from: a,b,c or @FILE with one a line; default: those trained on.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Classes to show an image.")
@click.option(
    "--reject",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Call an image unknown whose best class has a lower probability.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header: image, label, error, class_1, probability_1, …")
@click.option("--threads", type=click.IntRange(min=0), help="That decode images; default: one a core.")
@device_option
def predict(
    run: Path,
    images: tuple[str, ...],
    classes: str | None,
    top: int,
    reject: float,
    as_json: bool,
    as_csv: bool,
    threads: int | None,
    device: str,
) -> None:
    """Predict the class of images: files, folders, patterns such as 'new/**/*.jpg', or - for paths on standard input.

    Rows come batch by batch. A file that cannot be read is a row with its error; the rest goes on, and the exit
    code is 2.
    """
    from rmadapter.prediction import predict_run, read_names

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    names = None if classes is None else read_names(classes)
    total, predictions = predict_run(run, images, classes=names, top=top, reject=reject, device=device, threads=threads)
    show = _csv(top) if as_csv else _json if as_json else lambda prediction: click.echo(str(prediction))
    done = broken = 0
    with counter("predicting", total, visible=not sys.stdout.isatty()) as count:
        for prediction in predictions:
            show(prediction)
            count(1)
            done += 1
            broken += prediction.error is not None
    if broken:
        raise UserError(f"{broken} of {done} images could not be read", remedy="their rows say why")


def _json(prediction: Prediction) -> None:
    """A line of JSON; a file name that is not UTF-8 is escaped."""
    line = json.dumps(asdict(prediction), ensure_ascii=False)
    click.echo(line if line.isprintable() else json.dumps(asdict(prediction)))


def _csv(top: int) -> Callable[[Prediction], None]:
    """What writes a row; it has written the header."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    pairs = (f"{what}_{rank}" for rank in range(1, top + 1) for what in ("class", "probability"))
    table.writerow(["image", "label", "error", *pairs])

    def show(prediction: Prediction) -> None:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        cells = [cell for name, p in pairs for cell in (name, f"{p:.6f}")]
        table.writerow([prediction.image, prediction.label or "", prediction.error or "", *cells])
        sys.stdout.flush()

    return show
