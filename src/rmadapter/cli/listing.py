"""rmadapter list."""

from __future__ import annotations

import click


@click.command(name="list")
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks", "recipes"]))
def list_(what: str) -> None:
    """List what there is: methods, backbones, tasks or recipes."""
    rows: list[tuple[str, str]]
    if what == "methods":
        from rmadapter.methods import method_class, method_names

        rows = [(name, method_class(name).source) for name in method_names()]
    elif what == "backbones":
        from rmadapter.backbones import backbone_names

        rows = [(name, "inside the package") for name in backbone_names()]
        rows.append(
            ("ViT-B-16, ViT-L-14, …", "any CLIP-shaped open_clip model, with --pretrained TAG (default: openai)")
        )
        rows.append(("hf-hub:owner/model, FOLDER", "open_clip's layout"))
    elif what == "tasks":
        from rmadapter.data import load_task, public_names, task_names
        from rmadapter.data.catalog import entry

        tasks = {name: load_task(name) for name in task_names(domains=True)}
        rows = [(name, f"{len(task.classes):3} classes; {task.note.partition(';')[0]}") for name, task in tasks.items()]
        for name in public_names(domains=True):
            rows.append((name, f"{entry(name).classes:3} classes; on your disk: rmadapter data check {name}"))
        rows.append(("FOLDER", "class folders, or images with a split.json"))
        rows.append(("FILE", "a split .json, or a .csv or .jsonl list with path and label"))
    else:
        from rmadapter import recipes

        rows = [(name, "") for name in recipes.names()]
    width = max(len(name) for name, _ in rows)
    for name, about in rows:
        click.echo(f"{name:<{width}}  {about}".rstrip())
