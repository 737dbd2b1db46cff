"""Progress bars on standard error, so that standard output holds results only; none where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


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


@contextmanager
def training(steps: int, done: int, visible: bool = True) -> Iterator[Callable[[dict[str, float], float], None]]:
    """A bar of steps, of which some are done; yields what to call after each with its terms and images a second."""
    columns = [
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} images/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
    ]
    with bar(*columns, visible=visible and steps > 0) as shown:
        task = shown.add_task("", total=steps, completed=done, speed=0.0, terms="")

        def show(terms: dict[str, float], speed: float) -> None:
            text = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
            shown.update(task, advance=1, speed=speed, terms=text)

        yield show
