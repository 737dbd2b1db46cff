"""rmadapter list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rmadapter.backbones import Backbone

Rows = list[tuple[str, ...]]
NONE = "–"
NOTE = "Published: base-to-novel accuracy in percent on ViT-B/16, as papers print it. None of it was measured here."


@click.command(name="list")
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks", "recipes", "protocols"]))
@click.option("--backbone", help="Of methods: on which to count what trains. [pictoclip-s]")
def list_(what: str, backbone: str | None) -> None:
    """List what there is."""
    if backbone is not None and what != "methods":
        raise click.UsageError("--backbone belongs to rmadapter list methods")
    if what == "methods":
        click.echo(_aligned(_methods(backbone or "pictoclip-s")))
        click.echo(NOTE)
        return
    listed = {"backbones": _backbones, "tasks": _tasks, "recipes": _recipes, "protocols": _protocols}
    click.echo(_aligned(listed[what]()))


def _methods(backbone: str) -> Rows:
    from rmadapter import recipes
    from rmadapter.backbones import outline
    from rmadapter.methods import method_class, method_names

    on = outline(backbone)
    rows: Rows = [("method", "seams", f"trains on {backbone}", "source", "published base", "novel", "HM")]
    for name in method_names():
        quoted = recipes.published(name, "base-to-novel")
        scores = (f"{quoted[key]:.2f}" if key in quoted else NONE for key in ("base", "novel", "hm"))
        rows.append((name, _seams(name), _trained(name, on), method_class(name).source, *scores))
    return rows


def _seams(name: str) -> str:
    """Those that the method's class does not leave as they are."""
    from rmadapter.method import Method
    from rmadapter.methods import method_class

    cls = method_class(name)
    own = [seam for seam in ("tokens", "before", "beside", "head") if getattr(cls, seam) is not getattr(Method, seam)]
    return " ".join(own) or NONE


def _trained(name: str, backbone: Backbone) -> str:
    """How many parameters train, with the settings of the shipped recipe; for each class, where that is what counts."""
    from rmadapter.methods import method_class

    method = method_class(name)(backbone)
    if not method.class_bound:
        return f"{method.trained():,}"
    counts = []
    for classes in (("one",), ("one", "two")):
        method.start(classes, backbone.template)
        counts.append(method.trained())
    return f"{counts[0]:,}" if counts[0] == counts[1] else f"{counts[1] - counts[0]:,} a class"


def _backbones() -> Rows:
    from rmadapter.backbones import backbone_names

    return [
        *((name, "inside the package") for name in backbone_names()),
        ("ViT-B-16, ViT-L-14, …", "any CLIP-shaped open_clip model, with --pretrained TAG (default: openai)"),
        ("hf-hub:owner/model, FOLDER", "open_clip's layout"),
    ]


def _tasks() -> Rows:
    from rmadapter.data import load_task, public_names, task_names
    from rmadapter.data.catalog import entry

    tasks = {name: load_task(name) for name in task_names(domains=True)}
    return [
        *((name, f"{len(task.classes):3} classes; {task.note.partition(';')[0]}") for name, task in tasks.items()),
        *(
            (name, f"{entry(name).classes:3} classes; on your disk: rmadapter data check {name}")
            for name in public_names(domains=True)
        ),
        ("FOLDER", "class folders, or images with a split.json"),
        ("FILE", "a split .json, or a .csv or .jsonl list with path and label"),
    ]


def _recipes() -> Rows:
    from rmadapter import recipes

    return [(name,) for name in recipes.names()]


def _protocols() -> Rows:
    from rmadapter.protocols import PROTOCOLS

    return [
        (name, f"{', '.join(map(str, protocol.default_shots))} shots", protocol.about)
        for name, protocol in PROTOCOLS.items()
    ]


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
