"""How fast the small world is: loading a task, and drawing scenes, in one process on one core.

    python benchmarks/scenes.py

Prints medians over repeats. Loading is measured in fresh processes, imports included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from rmadapter.data import load_task

REPEATS, SCENES = 7, 1000
ROOT = Path(__file__).resolve().parents[1]


def loading() -> float:
    """Seconds from a fresh interpreter's first import to a loaded task."""
    code = (
        "import time; start = time.perf_counter()\n"
        "import rmadapter as ra; ra.load_task('pictograms/animals')\n"
        "print(time.perf_counter() - start)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(run.stdout)


def drawing(warm: bool) -> float:
    """Scenes a second over the first thousand training items of a task; warm: the artwork is decoded already."""
    items = load_task("pictograms/office").train_items[:SCENES]
    if not warm:
        from rmadapter.data.pictograms import sprite

        sprite.cache_clear()
    start = time.perf_counter()
    for item in items:
        item.picture.open()
    return SCENES / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    print(f"load_task, fresh process: {statistics.median(loading() for _ in range(REPEATS)):.2f} s")
    cold = statistics.median(drawing(warm=False) for _ in range(REPEATS))
    warm = statistics.median(drawing(warm=True) for _ in range(REPEATS))
    print(f"scenes a second, one core: {cold:.0f} with decoding of artwork, {warm:.0f} with artwork decoded")


if __name__ == "__main__":
    main()
