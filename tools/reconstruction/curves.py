"""The study's two plots. Colours are of Okabe and Ito's palette, and every line has a mark of its own besides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from results import Part, difference, extent

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
POINTS = ("zero-shot", "single branch")
"""Arms without a weight: marks, of which the second is where the lines over λ begin."""
WEIGHTS = ("reconstruction_image", "consistency_image")
"""What names a point on a line over λ."""


def weights(parts: Sequence[Part], path: Path) -> bool:
    """Base against novel accuracy over λ, a panel a setting; False where nothing has been run."""
    settings = [name for name in dict.fromkeys(part.setting for part in parts) if any(_points(parts, name))]
    if not settings:
        return False
    columns = min(3, len(settings))
    rows = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.4 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, setting in zip(grid.flat, settings, strict=False):
        _panel(axes, _points(parts, setting))
        axes.set_title(setting, fontsize=10, color=INK, loc="left")
    for axes in grid.flat[len(settings) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("novel accuracy, %", fontsize=9)
    for column in range(columns):
        grid[(len(settings) - 1 - column) // columns, column].set_xlabel("base accuracy, %", fontsize=9)
    handles = {text: line for axes in grid.flat for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    said = f"validation items, {extent(parts[0])}; at the marks λ1 (= λ2) or λ3; grey lines: equal HM"
    _legend(figure, handles, said)
    _save(figure, path)
    return True


def _points(parts: Sequence[Part], setting: str) -> dict[str, list[tuple[float, float, str]]]:
    """Base, novel and λ of what an arm scored in a setting, by arm."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for part in parts:
        for arm, candidate in part.labels if part.setting == setting else ():
            base, novel = (part.scores(arm, candidate).mean(role).mean for role in ("base", "novel"))
            if base is None or novel is None:
                continue
            changes = next((c.method for c in part.stage.candidates if c.label == candidate), {})
            named = "".join(f"{changes[key]:g}" for key in WEIGHTS if key in changes)
            found.setdefault(arm, []).append((base, novel, named))
    return found


def _panel(axes: Any, points: dict[str, list[tuple[float, float, str]]]) -> None:
    begin = points.get(POINTS[1], [])
    for arm, own in points.items():
        color, mark = STYLE[arm]
        if arm not in POINTS:
            line = [*begin, *own]
            axes.plot([x for x, _, _ in line], [y for _, y, _ in line], color=color, linewidth=1.5, zorder=2)
        axes.scatter(
            [x for x, _, _ in own], [y for _, y, _ in own], color=color, marker=mark, s=36, label=arm, zorder=3
        )
        for x, y, text in own:
            axes.annotate(text, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8, color=color)
    _plain(axes)
    axes.margins(0.15)
    _equal_hm(axes)


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
        for arm in curve[0].stage.arms if curve and ablation else ():
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
