"""A sweep's store as one page of HTML: tables, plots, tests, cost, and what was run. It needs no network.

The page holds its style sheet and its plots, and no script. Everything that a user or a file named is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from rmadapter import __version__
from rmadapter.compare import baseline_of
from rmadapter.files import new_folder
from rmadapter.measures import overview, overview_in_words
from rmadapter.page import figures, sections, sheets
from rmadapter.page.sections import Chapter
from rmadapter.page.sheets import Sheet
from rmadapter.store import Store
from rmadapter.tables import Grid

HERE = Path(__file__).parent
WHOLE = 9
"""Letters of a heading that is not broken."""


@dataclass(frozen=True)
class Page:
    """What ``render`` made."""

    html: str
    plots: tuple[str, ...]
    """Names of the plots' files, without their endings."""


def render(store: Store, baseline: str | None = None, plots: Path | None = None) -> Page:
    """The page of a store.

    Args:
        baseline: the method that others are compared with, by its label; None: zero-shot, where it is there.
        plots: a folder for every plot as PNG and SVG, made if need be; None: in the page only.

    Raises:
        DataError: for a folder without a sweep.
        SettingError: for a baseline that is not there.
        UserError: for a folder that cannot be written to.
    """
    grids = [Grid.read(plan, store) for plan in store.plans()]
    baselines = baseline_of(grids, baseline)
    labels = list(dict.fromkeys(label for grid in grids for label in grid.labels))
    style = figures.styles(labels, list(dict.fromkeys(baselines.values())))
    chapters = [sections.chapter(grid, baselines.get(index), style) for index, grid in enumerate(grids)]
    drawn: dict[str, str] = {}
    for chapter in chapters:
        for plot in sections.plots(chapter):
            drawn[plot.name] = _drawn(plot, plots)
    values = {
        "name": store.folder.resolve().name,
        "version": __version__,
        "chapters": chapters,
        "overview": _overview(grids, chapters) if len(grids) > 1 else None,
        "drawn": drawn,
    }
    return Page(_fill(values), tuple(drawn))


def _drawn(plot: figures.Plot, folder: Path | None) -> str:
    """A plot as the page holds it. Its files are drawn anew: saving moves what is laid out by a little."""
    if folder is not None:
        figures.save(plot.draw(), new_folder(folder, resume=True), plot.name)
    figure = plot.draw()
    if not plot.explained:
        figures.unexplained(figure)
    return figures.inline(figure, plot.name, f"{plot.title}. {plot.about}")


def _overview(grids: Sequence[Grid], chapters: Sequence[Chapter]) -> Sheet:
    """The means over tasks of all protocols in one table."""
    table = overview(grids)
    lacking = [f"{state(chapter)}." for chapter in chapters if _lacks(chapter)]
    return Sheet("All protocols", table.columns, sheets.rows_of(table), (overview_in_words(grids), *lacking))


def _lacks(chapter: Chapter) -> bool:
    return chapter.finished < chapter.wanted


def state(chapter: Chapter) -> str:
    """How much of a protocol is there, in words."""
    said = f"{chapter.name}: {chapter.finished} of {chapter.wanted} runs are finished"
    return f"{said}, {chapter.failed} failed" if chapter.failed else said


def _breakable(text: str) -> Markup:
    """Escaped, and with places where a narrow table may break a name; short ones stay whole."""
    if len(text) <= WHOLE:
        text = text.replace(" ", "\N{NO-BREAK SPACE}")
    return Markup(re.sub(r"([_/])(?=\w)", r"\1<wbr>", str(escape(text))))  # noqa: S704 (escaped)


def _fill(values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    files = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    files.filters |= {"state": state, "breakable": _breakable}
    files.tests["lacking"] = _lacks
    trusted = {  # made by this package, and escaped where it was made
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704
        "drawn": {name: Markup(text) for name, text in values.pop("drawn").items()},  # noqa: S704
    }
    return files.get_template("page.html").render(**values, **trusted)
