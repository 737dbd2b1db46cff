"""Writes the expected few-shot draws of tests/data/published_draws.json, without this package.

The procedure, in the words of Dassl and CoOp: call random.seed(seed) once. Go through the training list in file order
and group it by label, groups in the order in which their labels first appear. From each group take random.sample of K
when it has K or more, else all of it. Then do the same with the validation list and min(K, 4).

python tests/reference/published_draws.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

FILE = Path(__file__).parent.parent / "data" / "published_draws.json"
SEEDS = (0, 1, 2, 3, 42)
SHOTS = (2, 6)

# (label, training images, validation images) in file order; a label may come back later in the list.
LISTS = {
    "balanced": [(0, 9, 5), (1, 9, 5), (2, 9, 5), (3, 9, 5), (4, 9, 5)],
    "unbalanced": [(0, 1, 0), (1, 14, 6), (2, 5, 1), (3, 6, 4), (4, 2, 3), (5, 7, 5)],
    "not ascending": [(4, 3, 1), (0, 7, 4), (2, 2, 5), (4, 5, 2), (1, 8, 0), (0, 1, 3), (3, 6, 6), (2, 5, 0)],
}


def rows(blocks: list[tuple[int, int, int]], part: int) -> list[list[object]]:
    """[label, name] a row, in file order."""
    found: list[list[object]] = []
    for block, counts in enumerate(blocks):
        found += [[counts[0], f"{'tv'[part]}{block}{chr(97 + i)}"] for i in range(counts[1 + part])]
    return found


def main() -> None:
    """Write the lists, and a draw for each list, number of shots and seed."""
    content: dict[str, list[str]] = {"lists": [], "draws": []}
    for name, blocks in LISTS.items():
        train, val = rows(blocks, 0), rows(blocks, 1)
        content["lists"].append(json.dumps({"name": name, "train": train, "val": val}))
        for shots in SHOTS:
            for seed in SEEDS:
                random.seed(seed)
                taken: list[list[str]] = []
                for listed, count in ((train, shots), (val, min(shots, 4))):
                    names: list[str] = []
                    for label in dict.fromkeys(label for label, _ in listed):
                        group = [name for other, name in listed if other == label]
                        names += random.sample(group, count) if len(group) >= count else group
                    taken.append(names)
                draw = {"list": name, "shots": shots, "seed": seed, "train": taken[0], "val": taken[1]}
                content["draws"].append(json.dumps(draw))
    text = ",\n".join(
        f'"{key}": [\n{",".join(chr(10) + line for line in lines).lstrip()}\n]' for key, lines in content.items()
    )
    FILE.write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
