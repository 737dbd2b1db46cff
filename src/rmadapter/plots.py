"""Plots of scores as PNG files: confusion matrix, reliability diagram.

matplotlib's Figure is used directly, without pyplot, so nothing global is changed or left open. The colours are of
Okabe and Ito's palette, and one map from light to dark, so that colour-blind readers tell them apart. Class names are
never read as formulas (``parse_math``), since a name may hold a dollar sign.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmadapter.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rmadapter.evaluation import Scores

SKY, PALE, ORANGE, INK, GREY = "#56b4e9", "#cfe8f8", "#d55e00", "#1b1b1f", "#6b6b70"
DPI = 150
NAMED = 60
"""Classes up to which every row and column of a confusion matrix has its name."""
COUNTED = 30
"""Classes up to which every cell has its number of images."""
SCARCE = 10
"""Images below which a bin's accuracy says little, and its bar is pale."""
LISTED = 10
"""Confusions that are listed where names do not fit."""


def reliability(scores: Scores, title: str, path: Path) -> None:
    """Accuracy at each level of confidence beside the line where both are equal, over a histogram of confidences."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = scores.bins
    left, width = found.edges[:-1] * 100, np.diff(found.edges) * 100
    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    colors = [PALE if images < SCARCE else SKY for images in found.images]
    upper.bar(left, found.accuracy * 100, width, align="edge", color=colors, edgecolor="white")
    upper.bar(0, 0, color=SKY, label=f"accuracy in the bin (pale: fewer than {SCARCE} images)")
    upper.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle="--", label="accuracy = confidence")
    seen = found.images > 0
    sure, right = found.confidence[seen] * 100, found.accuracy[seen] * 100
    upper.vlines(sure, right, sure, color=ORANGE, linewidth=2.5, label="gap (ECE: its mean over images)")
    upper.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy, %")
    lower.bar(left, found.images, width, align="edge", color=GREY, edgecolor="white")
    lower.set(xlabel="confidence, %", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(loc="outside lower left", frameon=False, fontsize=9)
    for axes in (upper, lower):
        _plain(axes)
    numbers = (
        f"accuracy {scores.accuracy:.1f} %, mean confidence {scores.mean_confidence:.1f} %, ECE {scores.ece:.1f} %"
    )
    upper.set_title(f"{title}\n{numbers}", fontsize=10, color=INK, loc="left", parse_math=False)
    _save(figure, path)


def confusion(scores: Scores, names: Sequence[str], title: str, path: Path) -> None:
    """Confusion matrix: of each true class (row), the percent of its images predicted as each class (column).

    Classes stand in the task's order. Up to ``NAMED`` classes are named at the axes; beside a larger matrix stand the
    most frequent confusions. A cell without images is white, so that one image out of many still shows.
    """
    from matplotlib.figure import Figure

    few = len(names) <= NAMED
    side = max(3.0, 0.2 * len(names)) if few else 6.5
    figure = Figure(figsize=(side + 0.6, side))
    axes = figure.add_axes((0, 0, side / (side + 0.6), 1))
    bar = figure.add_axes(((side + 0.15) / (side + 0.6), 0, 0.12 / (side + 0.6), min(1, 3 / side)))
    _matrix(axes, bar, scores)
    axes.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)
    if few:
        places, short = range(len(names)), [_short(name) for name in names]
        axes.set_xticks(places, short, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(places, short, fontsize=8, parse_math=False)
    else:
        axes.set(xticks=[], yticks=[])
        text = "\n".join(["Most frequent confusions", "", *_most_confused(scores, names)])
        figure.text(1.03, 1, text, fontsize=9, color=INK, va="top", linespacing=1.5, parse_math=False)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    _save(figure, path)


def _matrix(axes: Axes, bar: Axes, scores: Scores) -> None:
    """The cells, their colour bar, and in a small matrix the numbers of images."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = ListedColormap(colormaps["Blues"](np.linspace(0.35, 1, 256)))
    share = 100 * scores.confusion / np.maximum(scores.class_images, 1)[:, None]
    drawn = axes.imshow(np.ma.masked_equal(share, 0), cmap=colors, vmin=0, vmax=100, interpolation="nearest")
    axes.figure.colorbar(drawn, cax=bar).set_label("% of the class's images", fontsize=9)
    for each in (axes, bar):
        each.tick_params(length=0, labelsize=8)
    for spine in (*axes.spines.values(), *bar.spines.values()):
        spine.set(color=GREY, linewidth=0.5)
    if len(share) <= COUNTED:
        for row, column in zip(*scores.confusion.nonzero(), strict=True):
            ink = "white" if share[row, column] > 50 else INK
            axes.text(column, row, scores.confusion[row, column], color=ink, fontsize=7, ha="center", va="center")


def _most_confused(scores: Scores, names: Sequence[str]) -> list[str]:
    """The cells off the diagonal with most images, as text; ties in the order of the classes."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    ranked = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    cells = [divmod(int(cell), len(names)) for cell in ranked if wrong.flat[cell]]
    return [f"{wrong[t, p]} of {scores.class_images[t]}  {_short(names[t])} → {_short(names[p])}" for t, p in cells]


def _short(name: str, longest: int = 24) -> str:
    """A long name without its middle, since names that are confused often differ at their end only."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: longest - half - 1].rstrip()}…{name[-half:].lstrip()}"


def _plain(axes: Axes) -> None:
    """No box, light text, a faint grid behind the marks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color=GREY)


def _save(figure: Figure, path: Path) -> None:
    """A PNG that is the same for the same numbers. A letter that the font lacks is a box, and no reason to complain."""
    options: dict[str, Any] = {"format": "png", "dpi": DPI, "bbox_inches": "tight", "pad_inches": 0.15}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        write_atomic(path, lambda temporary: figure.savefig(temporary, metadata={"Software": None}, **options))
