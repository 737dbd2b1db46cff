"""Progress bars on standard error, so that standard output holds results only; none where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def bar(*columns: ProgressColumn | str, visible: bool = True) -> Progress:
    """A rich progress display that vanishes when it is done."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not visible or not console.is_terminal)


@contextmanager
def counter(text: str, total: int | None, visible: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar with a text; yields what to call with the number of items done since the last call."""
    with bar(*Progress.get_default_columns(), visible=visible) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, advance=done)
