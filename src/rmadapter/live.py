"""What a running sweep looks like: a live table on a terminal, a line a finished run elsewhere; on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rmadapter.store import Plan, Planned, Result, Store, is_done
from rmadapter.tables import Grid


class Watch:
    """Follows a plan in its store."""

    def __init__(self, plan: Plan, store: Store, jobs: int) -> None:
        self.plan, self.store, self.jobs = plan, store, jobs
        self.grid = Grid.read(plan, store)
        self.before = self.grid.results  # an error among them is of an earlier call, and its run is tried again
        self.known = {run.id for run in plan.runs if is_done(self.before[run.id], run)}
        self.cached = len(self.known)

    def look(self) -> list[tuple[Planned, Result]]:
        """Read the store again; runs that ended since the last look."""
        results = {run.id: self.store.read(run.id) for run in self.plan.runs if run.id not in self.known}
        self.grid = Grid(self.plan, {**self.grid.results, **results})
        news = []
        for run in self.plan.runs:
            result = self.grid.results[run.id]
            if run.id in self.known or result is None or result == self.before[run.id]:
                continue
            if result.error or is_done(result, run):
                self.known.add(run.id)
                news.append((run, result))
        return news

    def left(self) -> float | None:
        """Seconds that the open runs will take, by the mean of a method's finished ones; None: no method has any."""
        by_label: dict[str, list[float]] = {}
        for run in self.plan.runs:
            result = self.grid.results[run.id]
            if result is not None and is_done(result, run) and result.seconds:
                by_label.setdefault(run.label, []).append(sum(result.seconds.values()))
        if not by_label:
            return None
        usual = fmean(value for values in by_label.values() for value in values)
        waiting = [run for run in self.grid.open if run.id not in self.known]
        return sum(fmean(by_label.get(run.label, [usual])) for run in waiting) / self.jobs

    def table(self) -> Group:
        """Methods with how many runs are done, what they score so far, and the time left."""
        table = Table(box=None, pad_edge=False)
        roles = self.grid.roles
        for name in ("", "done", "failed", *roles, "s a run"):
            table.add_column(name, justify="left" if not name else "right")
        failed = {run.id for run, _ in self.grid.failed}
        for label in self.grid.labels:
            runs = self.grid.runs(label=label)
            done = [run for run in runs if is_done(self.grid.results[run.id], run)]
            cells = [f"{len(done)}/{len(runs)}", str(sum(run.id in failed for run in runs) or "")]
            cells += [_mean([s for run in done if (s := self.grid.score(run, role)) is not None]) for role in roles]
            seconds = [sum(result.seconds.values()) for run in done if (result := self.grid.results[run.id])]
            table.add_row(label, *cells, _mean(seconds))
        return Group(table, Text(self.remaining(), style="dim"))

    def remaining(self) -> str:
        """The time left in words."""
        left = self.left()
        said = "time left: not known yet" if left is None else f"about {_clock(left)} left"
        return said if not self.cached else f"{said}; {self.cached} runs were done already"


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.1f}" if values else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


@contextmanager
def watching(plan: Plan, store: Store, jobs: int, visible: bool = True) -> Iterator[Any]:
    """Yields what to call whenever something may have changed."""
    watch, console = Watch(plan, store, jobs), Console(stderr=True)
    if not visible:
        yield lambda: None
    elif console.is_terminal:
        with Live(watch.table(), console=console, transient=True, auto_refresh=False) as live:

            def show() -> None:
                watch.look()
                live.update(watch.table(), refresh=True)

            yield show
    else:

        def tell() -> None:
            for run, result in watch.look():
                console.print(_line(run, result, watch), highlight=False, soft_wrap=True)

        yield tell
        tell()


def _line(run: Planned, result: Result, watch: Watch) -> str:
    what = f"{len(watch.known)}/{len(watch.plan.runs)} {run.label}, {run.recipe['data']}, seed {run.recipe['seed']}"
    if result.error:
        return f"{what}: failed: {result.reason}"
    scores = ", ".join(f"{want.role} {found.accuracy:.1f}" for want in run.wanted[:3] if (found := result.score(want)))
    return f"{what}: {scores} ({sum(result.seconds.values()):.0f} s); {watch.remaining()}"
