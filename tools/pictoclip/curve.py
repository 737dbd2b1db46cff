"""The learning curve as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from rmadapter.data.pictograms import FLUENT


def draw(log: list[dict[str, float]], file: Path) -> None:
    """Zero-shot accuracy on validation scenes and the loss, over minutes."""
    mpl.use("agg")
    minutes = [row["minutes"] for row in log]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(minutes, [row["all"] for row in log], "k-o", markersize=3, label="all styles")
    for style in FLUENT:
        left.plot(minutes, [row[style] for row in log], linewidth=1, label=style)
    left.set(xlabel="minutes of training", ylabel="zero-shot, % (mean over ten tasks, validation)", ylim=(0, None))
    left.grid(alpha=0.3)
    right = left.twinx()
    right.plot(minutes, [row["loss"] for row in log], "--", color="grey", linewidth=1, label="loss")
    right.set(ylabel="contrastive loss", ylim=(0, None))
    left.legend(loc="upper left", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
