"""rmadapter demo."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from rmadapter.cli.options import device_option


@click.command()
@click.option(
    "--out", default="demo-out", show_default=True, type=click.Path(path_type=Path), help="A new or empty folder."
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of shots, initial values and order."
)
@device_option
def demo(out: Path, seed: int, device: str) -> None:
    """See RMAdapter learn: 16 shots of pictograms of animals, base to novel, beside zero-shot CLIP."""
    from rmadapter import demo as demonstration

    summary = demonstration.run(out, seed=seed, device=device)
    click.echo(f"{'percent':<12}{'base':>8}{'novel':>8}{'HM':>8}")
    for name in ("zero_shot", "rmadapter"):
        scores = cast("dict[str, float]", summary[name])
        click.echo(f"{name:<12}{scores['base']:>8.1f}{scores['novel']:>8.1f}{scores['hm']:>8.1f}")
    click.echo(f"{summary['seconds']:.0f} s; trained on {summary['shots']} images a class, tested on scenes never seen")
    click.echo(f"look at {out / 'contact_sheet.png'}, {out / 'summary.json'}; the adapter is in {out / 'run'}")
