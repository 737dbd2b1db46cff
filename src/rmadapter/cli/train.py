"""rmadapter train."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from rmadapter.cli.options import GO_ON, RecipeCommand, changes_of, device_option, root_option, say_small
from rmadapter.errors import UserError

FEW = 50
"""Steps below which a user is told: recipes count epochs, and a handful of images gives few batches."""


@click.command(cls=RecipeCommand)
@click.option(
    "--recipe", help="A shipped recipe (rmadapter/pictograms), used as it stands, or a TOML file; flags override it."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder, new or empty.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if there is one.")
@root_option
@device_option
def train(recipe: str | None, out: Path, resume: bool, device: str, **options: Any) -> None:
    """Train a method on a task or on a folder of class folders.

    rmadapter train --data photos/ --backbone ViT-B-16 --out runs/photos
    """
    from rmadapter import run
    from rmadapter.data.task import Manifest
    from rmadapter.recipe import changed, resolve
    from rmadapter.train import SHOTS

    changes = changes_of(options)
    unchanged = changes == {"method": {}, "train": {}}
    if resume and recipe is None and (unchanged or (out / run.RUN).exists()):
        resolved = changed(run.read_run(out).recipe, changes)
    else:
        resolved = resolve(recipe, changes)
    go_on = f"rmadapter train --out {shlex.quote(str(out))} --resume"
    click.get_current_context().meta[GO_ON] = lambda: go_on if (out / run.RUN).exists() else "the same command"
    result = run.train(resolved, out, resume=resume, device=device)
    if result is None:
        click.echo("this run was finished already")
    else:
        click.echo(f"{result.steps} steps in {result.seconds:.0f} s ({result.images_per_second:.0f} images/s)")
        if 0 < result.steps < FEW:
            click.echo(f"note: so few steps may change little; train for longer by --train.updates {4 * FEW}", err=True)
    say_small(resolved.backbone, [resolved.data])
    learned = Manifest.read(out / SHOTS, UserError)
    click.echo(
        f"to learn from: {len(learned.train)} images of {len(learned.classes)} classes (--shots {resolved.shots})"
    )
    whole = Manifest.read(out / run.TASK, UserError)
    click.echo(f"split: {whole.note}")
    click.echo(f"adapter, log and split: {out}")
    named = shlex.quote(str(out))
    ways = [f"rmadapter evaluate {named}"] * bool(whole.data is None or whole.test)
    click.echo(f"next: {'   or: '.join([*ways, f'rmadapter predict {named} IMAGE_OR_FOLDER'])}")
