"""Plots of a sweep: SVG inside the page, and PNG and SVG files.

Inside a page the colours are names that its style sheet fills in, so that a drawing is read on white and on black.
Colours keep a contrast of 3:1 to both papers, and every method has a marker of its own besides. Nothing is read as a
formula (``parse_math``), since a label may hold a dollar sign.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from rmadapter.compare import Difference
from rmadapter.files import write_atomic
from rmadapter.store import Levels
from rmadapter.tables import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, LINE = "#1b1b1f", "#5f5f66", "#d9d9de"
SERIES = ("#0067a5", "#c44e00", "#00795a", "#a03c86", "#8a5a12", "#b3261e", "#5b54c4", "#3f7d20")
"""On white; ``style.css`` has the same order for black."""
NAMES = {INK: "--ink", GREY: "--muted", LINE: "--line", **{color: f"--s{i}" for i, color in enumerate(SERIES)}}
"""What each colour is called in the page."""
MARKERS = "osD^vPX*<>ph"
LINES = ("-", "--", ":", "-.")
WIDE, NARROW = 4.6, 3.4
"""Inches. A narrow plot fills a phone's width with letters that can be read there."""
REM_AN_INCH = 7.8
"""How large a page shows a plot at most, in its letter size; one bound for all, so that their letters are alike."""
LEGEND_LINE = 0.17
"""Inches."""
DPI = 200
SCARCE = 10
"""Images below which a bin's accuracy says little, and is not drawn."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in every plot of a page."""

    color: str
    marker: str
    line: str


@dataclass(frozen=True)
class Plot:
    """A drawing and its words."""

    name: str
    """Of its files, without an ending."""
    title: str
    about: str
    """What is to be seen, in a sentence; also for those who do not see it."""
    draw: Callable[[], Figure]
    explained: bool = True
    """False: in the page it stands below a plot of the same colours, and needs no legend of its own."""


def styles(labels: Sequence[str], plain: Sequence[str]) -> dict[str, Style]:
    """A style a label; those in ``plain``, the baselines, are grey."""
    found, others = {}, [label for label in labels if label not in plain]
    for index, label in enumerate(others):
        line = LINES[index // len(SERIES) % len(LINES)]
        found[label] = Style(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)], line)
    for label in plain:
        found[label] = Style(GREY, "X", "--")
    return {label: found[label] for label in labels if label in found}


def base_against_novel(points: Mapping[str, tuple[Cell, Cell]], style: Mapping[str, Style], title: str) -> Figure:
    """A method's mean base and novel accuracy with standard errors, over lines of equal harmonic mean."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _canvas(WIDE, 3.7, title)
    base, novel = ([cells[i].mean or 0.0 for cells in points.values()] for i in (0, 1))  # none is missing
    (left, right), (low, high) = _around(base), _around(novel)
    across, up = np.meshgrid(np.linspace(left, right, 60), np.linspace(max(low, 0.1), high, 60))
    means = 2 * across * up / (across + up)
    heights = MaxNLocator(7, integer=True).tick_values(float(means.min()), float(means.max()))
    lines = axes.contour(across, up, means, levels=heights, colors=LINE, linewidths=1)
    axes.clabel(lines, fmt="HM %g", fontsize=8, colors=GREY)
    for label, right_, high_ in zip(points, base, novel, strict=True):
        (x, y), drawn = points[label], style[label]
        error: dict[str, Any] = {"xerr": x.error, "yerr": y.error, "color": drawn.color, "elinewidth": 1.2}
        axes.errorbar(right_, high_, fmt="none", capsize=2.5, **error)
        axes.plot([right_], [high_], drawn.marker, color=drawn.color, markersize=8, label=shorten(label))
    axes.set(xlim=(left, right), ylim=(low, high), xlabel="accuracy on base classes, %")
    axes.set_ylabel("accuracy on novel classes, %")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(7, integer=True))
    _legend(figure, [shorten(label) for label in points])
    return figure


def over_shots(
    rows: Mapping[str, Sequence[Cell]], shots: Sequence[int], style: Mapping[str, Style], title: str, wide: bool
) -> Figure:
    """Accuracy over training images a class, with standard errors; a hole interrupts its line."""
    figure, axes = _canvas(WIDE if wide else NARROW, 2.7, title)
    for label, cells in rows.items():
        drawn = style[label]
        middle = [np.nan if cell.mean is None else cell.mean for cell in cells]
        color, error = drawn.color, [cell.error or 0.0 for cell in cells]
        axes.errorbar(shots, middle, yerr=error, fmt="none", color=color, elinewidth=1.0, capsize=2.0)
        look: dict[str, Any] = {"marker": drawn.marker, "linestyle": drawn.line, "markersize": 5.5}
        axes.plot(shots, middle, color=color, linewidth=1.5, label=shorten(label), **look)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(shots), [str(count) for count in shots])
    axes.minorticks_off()
    axes.set(xlabel="training images a class", ylabel="accuracy, %")
    _legend(figure, [shorten(label) for label in rows])
    return figure


def against_baseline(rows: Sequence[Difference], baseline: str, style: Mapping[str, Style], title: str) -> Figure:
    """Each method's difference to the baseline: a dot a task, and a bar at their mean."""
    figure, axes = _canvas(NARROW, 0.9 + 0.34 * len(rows), title)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=1.2)
    for place, row in enumerate(rows):
        color = style[row.label].color
        known = [value for value in row.by_task if value is not None]
        axes.plot(known, [place] * len(known), "o", color=color, markerfacecolor="none", markersize=6)
        if row.mean is not None:
            axes.plot([row.mean] * 2, [place - 0.32, place + 0.32], color=color, linewidth=3)
    axes.set_yticks(range(len(rows)), [shorten(row.label, 26) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"points more than {shorten(baseline, 30)}", loc="right", parse_math=False)
    return figure


def reliability(parts: Mapping[str, Levels], title: str) -> Figure:
    """Accuracy at each level of confidence, a line for each part; on the diagonal both are equal."""
    figure, axes = _canvas(2.3, 2.4, "", size=9)
    figure.suptitle(shorten(title, 26), x=0.02, ha="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle="--")
    for index, (name, found) in enumerate(parts.items()):
        enough = [i for i, images in enumerate(found.images) if images >= SCARCE]
        sure = [100 * found.confidence[i] for i in enough]
        right = [100 * found.right[i] / found.images[i] for i in enough]
        marker, color = MARKERS[index % len(MARKERS)], SERIES[index % len(SERIES)]
        axes.plot(sure, right, marker=marker, color=color, markersize=4, linewidth=1.4, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="right, %", aspect="equal")
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK, handlelength=1.6)
    return figure


def unexplained(figure: Figure) -> None:
    """Take a figure's legend away, and its room."""
    for legend in [*figure.legends]:
        height = _lines(figure, [text.get_text() for text in legend.get_texts()])[1] * LEGEND_LINE
        legend.remove()
        figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() - height)


def inline(figure: Figure, name: str, about: str) -> str:
    """SVG to stand in a page: colours are the page's, names of parts its own, and nothing outside is referred to."""
    root = ElementTree.fromstring(_svg(figure, letters="none"))  # noqa: S314 (written a line before)
    for parent in [*root.iter()]:
        parent.tag = _local(parent.tag)
        for child in [*parent]:
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
        parent.attrib = {_local(key): _own(_local(key), value, name) for key, value in parent.attrib.items()}
    most = f"max-width: {REM_AN_INCH * figure.get_figwidth():.1f}rem"
    root.attrib = {
        "class": "plot",
        "style": most,
        "role": "img",
        "aria-label": about,
        "viewBox": root.attrib["viewBox"],
    }
    return ElementTree.tostring(root, encoding="unicode")


def save(figure: Figure, folder: Path, name: str) -> None:
    """``NAME.png`` and ``NAME.svg`` on white, the same bytes for the same numbers."""
    options: dict[str, Any] = {"dpi": DPI, "facecolor": "white"}
    write_atomic(
        folder / f"{name}.png",
        lambda file: figure.savefig(file, format="png", metadata={"Software": None}, **options),
    )
    text = _svg(figure, letters="path", facecolor="white")
    write_atomic(folder / f"{name}.svg", lambda file: file.write_text(text, encoding="utf-8"))


def shorten(label: str, longest: int = 44) -> str:
    """A long label without its middle, and without what no letter stands for."""
    half, label = longest // 2, "".join(letter if letter.isprintable() else "�" for letter in label)
    return label if len(label) <= longest else f"{label[: longest - half - 1].rstrip()}…{label[-half:].lstrip()}"


def _canvas(width: float, height: float, title: str, size: int = 10) -> tuple[Figure, Axes]:
    """Axes without a box, over a faint grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(shorten(title, 60), fontsize=size + 1, color=INK, loc="left", fontweight="bold", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=size - 1, color=GREY, labelcolor=INK)
    for each in (axes.xaxis.label, axes.yaxis.label):
        each.set(fontsize=size, color=INK)
    return figure, axes


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    """Below the axes, in as many columns as fit; the figure grows by its lines."""
    columns, lines = _lines(figure, labels)
    figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + LEGEND_LINE * lines)
    made = figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=8.5, labelcolor=INK)
    for text in made.get_texts():
        text.set_parse_math(False)


def _lines(figure: Figure, labels: Sequence[str]) -> tuple[int, int]:
    """Columns and lines of a legend, at 15 letters an inch and 6 for the sample."""
    columns = max(1, min(len(labels), int(figure.get_figwidth() * 15) // (max(map(len, labels), default=1) + 6)))
    return columns, math.ceil(len(labels) / columns)


def _around(values: Sequence[float], least: float = 6.0) -> tuple[float, float]:
    """Limits with room beside the values, at least so many points apart, within 0 to 100 as far as possible."""
    middle, half = (min(values) + max(values)) / 2, max(least, (max(values) - min(values)) * 1.4) / 2
    return max(0.0, middle - half), min(100.0, middle + half)


def _svg(figure: Figure, letters: str, **options: Any) -> str:
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": letters, "svg.hashsalt": "rmadapter"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent="facecolor" not in options, **options)
    return file.getvalue()


def _local(name: str) -> str:
    """A tag or attribute without its namespace, which a page does not need."""
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    """An attribute as the page has it: colours by name, parts under the plot's own names, the page's letters."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"^#(?=[A-Za-z_])|(?<=url\(#)", lambda found: f"{found[0]}{name}-", value)
    if key == "style":
        value = re.sub(r"font-family: [^;]*;?", "", value)
        value = re.sub(
            r"#[0-9a-f]{6}\b", lambda found: f"var({NAMES[found[0]]})" if found[0] in NAMES else found[0], value
        )
    return value
