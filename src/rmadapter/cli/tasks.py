"""rmadapter tasks."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def tasks() -> None:
    """Tasks inside the package, as files on disk."""


@tasks.command()
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
def export(task: str, folder: Path) -> None:
    """Write a task as PNG files with a split.json, as it would lie on a user's disk."""
    from rmadapter.data import load_task
    from rmadapter.data.export import export_task
    from rmadapter.progress import counter

    found = load_task(task)
    with counter("writing", len(found.train) + len(found.val) + len(found.test)) as count:
        export_task(found, folder, count)
    click.echo(f"{task}: {folder}")
