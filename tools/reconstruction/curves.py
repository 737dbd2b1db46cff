"""The study's two plots. Colours are of Okabe and Ito's palette, and every line has a mark of its own besides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from results import Part, difference, extent
from stages import Candidate

from rmadapter.files import write_atomic

GREY, INK = "#6b6b70", "#1b1b1f"
STYLE = {
    "zero-shot": (GREY, "X"),
    "single branch": (INK, "o"),
    "+ reconstruction, shared down": ("#d55e00", "s"),
    "consistency only": ("#0072b2", "^"),
    "RMAdapter": ("#009e73", "D"),
}
"""Colour and mark of each arm that is drawn."""
SINGLE, WHOLE = "single branch", "RMAdapter"
"""The arm at which lines over a weight begin, and the one with two weights, which is drawn as marks."""
WEIGHTS = ("reconstruction_image", "consistency_image")
"""What names a point."""
Mark = tuple[str, float, float, str]
"""Arm, base, novel, and its weights in words."""
SIDES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where its weights may stand beside it, from the best: right and up are 1."""
Box = tuple[float, float, float, float]
"""Left, low, right, high."""


def weights(parts: Sequence[Part], zero: Sequence[Part], path: Path) -> bool:
    """Base against novel accuracy over λ, a panel a rate; False where nothing has been run."""
    points = {rate: found for rate in _rates(parts) if (found := _points(parts, rate))}
    if not points:
        return False
    figure = Figure(figsize=(3.6 * len(points), 4.0), layout="constrained")
    grid = figure.subplots(1, len(points), squeeze=False, sharex=True, sharey=True)[0]
    marks = []
    for axes, (rate, found) in zip(grid, points.items(), strict=True):
        marks.append(_panel(axes, found, [(part, "zero-shot") for part in zero]))
        axes.set_title(f"rate {rate:g}", fontsize=10, color=INK, loc="left")
        axes.set_xlabel("base accuracy, %", fontsize=9)
    grid[0].set_ylabel("novel accuracy, %", fontsize=9)
    for axes in grid:
        _equal_hm(axes)
    handles = {text: line for axes in grid for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    said = f"validation items, {extent(parts[0])}; at the marks λ1 (= λ2), λ3, or both; grey lines: equal HM"
    _legend(figure, handles, said)
    figure.draw_without_rendering()  # so that axes are where they will be
    for axes, shown in zip(grid, marks, strict=True):
        _name(axes, shown)
    _save(figure, path)
    return True


def _rates(parts: Sequence[Part]) -> list[float]:
    """At which rates something with a weight was tried."""
    return sorted({rate for part in parts for rate in part.stage.rates if any(map(_named, part.stage.tried))})


def _named(candidate: Candidate) -> str:
    """Its λ1 and λ3."""
    return ", ".join(f"{candidate.method[key]:g}" for key in WEIGHTS if key in candidate.method)


def _points(parts: Sequence[Part], rate: float) -> dict[str, list[tuple[float, float, str]]]:
    """Base, novel and λ of what was tried at a rate, by arm, in the order of λ."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for part in parts:
        tried = [candidate for candidate in part.stage.tried if candidate.train.get("lr") == rate]
        for candidate in sorted(tried, key=lambda c: [c.method.get(key, 0.0) for key in WEIGHTS]):
            for arm in part.stage.arms:
                base, novel = (part.scores(arm, candidate.label).mean(role).mean for role in ("base", "novel"))
                if base is not None and novel is not None:
                    found.setdefault(arm, []).append((base, novel, _named(candidate)))
    return found


def _panel(
    axes: Any, points: dict[str, list[tuple[float, float, str]]], zero: Sequence[tuple[Part, str]]
) -> list[Mark]:
    """Lines and marks; returns the marks, which have no names yet."""
    marks = [(arm, *point) for arm, own in points.items() for point in own]
    for part, arm in zero:
        base, novel = (part.scores(arm).mean(role).mean for role in ("base", "novel"))
        marks += [] if base is None or novel is None else [(arm, base, novel, "")]
    for arm, own in points.items():
        if arm not in (SINGLE, WHOLE):
            line = [*points.get(SINGLE, []), *own]
            axes.plot([x for x, _, _ in line], [y for _, y, _ in line], color=STYLE[arm][0], linewidth=1.5, zorder=2)
    for arm, x, y, _ in marks:
        color, mark = STYLE[arm]
        axes.scatter([x], [y], color=color, marker=mark, s=36, label=arm, zorder=3)
    _plain(axes)
    axes.margins(0.15)
    return marks


def _name(axes: Any, marks: Sequence[Mark]) -> None:
    """Each mark's weights beside it, where they cover no mark, no line and no other weights."""
    dots = axes.figure.dpi / 72
    places = [axes.transData.transform((x, y)) / dots for _, x, y, _ in marks]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for line in axes.get_lines():
        for one, other in pairwise(axes.transData.transform(line.get_xydata()) / dots):
            steps = np.linspace(one, other, 2 + int(np.hypot(*(other - one)) / 3))
            taken += [(x - 1, y - 1, x + 1, y + 1) for x, y in steps]
    for (arm, x, y, text), (left, low) in zip(marks, places, strict=True):
        width, height = 4.6 * len(text), 8.0
        boxes = [
            (left + far - width / 2, low + up - height / 2, left + far + width / 2, low + up + height / 2)
            for reach in (6.0, 10.0, 15.0)
            for far, up in ((over * (reach + width / 2), up * (reach + height / 2)) for over, up in SIDES)
        ]
        box = next((box for box in boxes if not any(_cover(box, other) for other in taken)), boxes[0])
        taken.append(box)
        offset = ((box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - low)
        placed = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8}
        written = axes.annotate(text, (x, y), xytext=offset, color=STYLE[arm][0], **placed)
        written.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _cover(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _equal_hm(axes: Any) -> None:
    """Lines of equal HM, every two points."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    bases, novels = np.meshgrid(np.linspace(max(left, 1), right, 60), np.linspace(max(low, 1), high, 60))
    means = 2 * bases * novels / (bases + novels)
    levels = np.arange(2 * math.floor(means.min() / 2), means.max() + 2, 2)
    drawn = axes.contour(bases, novels, means, levels=levels, colors="#c9c9cf", linewidths=0.7, zorder=1)
    axes.clabel(drawn, fontsize=7, colors=GREY, fmt="%g")
    axes.set(xlim=(left, right), ylim=(low, high))


def lengths(curve: Sequence[Part], ablation: Sequence[Part], path: Path) -> bool:
    """Base and novel accuracy minus those of zero-shot over updates; bars: standard error over tasks, one seed."""
    gained = {role: _lengths(curve, ablation, role) for role in ("base", "novel", "HM")}
    if not gained["HM"]:
        return False
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    for axes, (role, by_arm) in zip(figure.subplots(1, 3), gained.items(), strict=True):
        for place, (arm, points) in enumerate(by_arm.items()):
            color, mark = STYLE[arm]
            x = [
                updates * 2 ** (0.06 * (place - 1.5)) for updates, _, _ in points
            ]  # beside each other, so that bars show
            axes.errorbar(
                x,
                [m for _, m, _ in points],
                [e for _, _, e in points],
                color=color,
                marker=mark,
                markersize=5,
                linewidth=1.5,
                elinewidth=0.8,
                label=arm,
            )
        ticks = sorted({updates for points in by_arm.values() for updates, _, _ in points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.axhline(0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_xlabel("updates", fontsize=9)
        axes.set_ylabel(f"{role} − that of zero-shot, points", fontsize=9)
        _plain(axes)
    lines, names = axes.get_legend_handles_labels()
    said = f"test items, {extent(curve[0])}; bars: standard error of the mean difference, over tasks"
    _legend(figure, dict(zip(names, lines, strict=True)), said)
    _save(figure, path)
    return True


def _lengths(curve: Sequence[Part], ablation: Sequence[Part], role: str) -> dict[str, list[tuple[int, float, float]]]:
    """Updates, mean over tasks and its standard error, by arm; in the seeds of the curve."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for part in (*curve, *ablation):
        for arm in curve[0].stage.arms[1:] if curve and ablation else ():
            zero = ablation[0].scores("zero-shot")
            gained = difference(part.scores(arm), zero, role, curve[0].stage.seeds)
            if gained is not None:
                updates = part.grid.runs(label=part.labels[arm, ""])[0].recipe["train"]["updates"]
                found.setdefault(arm, []).append((updates, gained.mean, gained.error))
    return {arm: sorted(points) for arm, points in found.items()}


def _legend(figure: Figure, handles: dict[str, Any], said: str) -> None:
    """Arms by their marks, under a line that says what is shown."""
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": 4, "frameon": False, "fontsize": 9}
    figure.legend(handles.values(), handles, title=said, title_fontsize=8, **place)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#ececf0", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=GREY)


def _save(figure: Figure, path: Path) -> None:
    """A PNG that is the same for the same numbers."""
    options: dict[str, Any] = {"format": "png", "dpi": 150, "bbox_inches": "tight", "pad_inches": 0.15}
    write_atomic(path, lambda temporary: figure.savefig(temporary, metadata={"Software": None}, **options))
