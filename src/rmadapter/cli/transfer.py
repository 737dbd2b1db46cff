"""rmadapter transfer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rmadapter.cli.options import (
    GroupedCommand,
    changes_of,
    device_option,
    peek,
    root_option,
    run_argument,
    setting_options,
)

if TYPE_CHECKING:
    from rmadapter.carrying import Transferred


class TransferCommand(GroupedCommand):
    """A command whose options are the settings of TransMiter and of its supervised step."""

    def sections(self, args: list[str]) -> dict[str, list[click.Option]]:
        from rmadapter.methods.transmiter import TransMiterSettings
        from rmadapter.recipe import resolve
        from rmadapter.train import TrainSettings

        to = peek(args, "--to")
        recipe = resolve(None, {"method": {"name": "transmiter"}, **({"backbone": to} if to else {})})
        train = recipe.train.model_dump()
        return {
            "What is learned and carried over": setting_options(TransMiterSettings, "method.", recipe.method_settings),
            "The supervised step of --plus": setting_options(TrainSettings, "train.", train),
        }


@click.command(cls=TransferCommand)
@run_argument
@click.option("--to", required=True, help="The target backbone, as --backbone of train.")
@click.option("--pretrained", default="default", show_default=True, help="Its weights, as in train.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new run's folder, new or empty.")
@click.option("--data", help="Another task to look at, or where the run's data are now; default: the run's own.")
@click.option("--plus", is_flag=True, help="Then train on the labels too (TransMiter+).")
@root_option
@device_option
def transfer(
    run: Path, to: str, pretrained: str, out: Path, data: str | None, plus: bool, device: str, **options: Any
) -> None:
    """Carry what RUN has learned over to another backbone, without a gradient there: TransMiter.

    rmadapter transfer runs/photos --to ViT-L-14 --out runs/photos-l

    Looks at RUN's training images, with both backbones, once. The new run is one like any other; it knows the classes
    of its task, and no others.
    """
    from rmadapter.carrying import transfer_run

    changes = changes_of(options)
    weights = None if pretrained.lower() == "none" else pretrained
    done = transfer_run(
        run,
        to,
        out,
        pretrained=weights,
        data=data,
        plus=plus,
        method=changes["method"],
        train=changes["train"],
        device=device,
    )
    for line in _said(done, plus):
        click.echo(line)
    named = shlex.quote(str(out))
    click.echo(f"next: rmadapter evaluate {named}   or: rmadapter predict {named} IMAGE_OR_FOLDER")


def _said(done: Transferred, plus: bool) -> list[str]:
    """What was done, in words."""
    carried, net = done.carried, done.carried.method
    teacher = f"{done.teacher.name} on {done.teacher.backbone.name}"
    novel = "" if done.recipe.classes == "all" else f", names of novel classes {net.settings.novel}"
    auxiliary = f"{len(net.settings.auxiliary)} auxiliary names"
    millions = {name: f"{count / 1e6:,.1f}" for name, count in done.flops.items()}
    return [
        f"{teacher} carried over to {net.backbone.name}: {len(net.classes)} classes and {auxiliary}",
        f"looked at {done.images} images, {'with' if plus else 'without'} their labels{novel}",
        ", ".join(f"{part} {seconds:.1f} s" for part, seconds in carried.seconds.items()),
        f"an image costs {millions['transmiter']} million operations more; by emulated fine-tuning (EFT), which runs "
        f"three models, {millions['eft']}",
    ]
