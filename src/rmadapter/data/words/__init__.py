"""Word lists: names of things that are no classes of a task, to stand beside those that are.

``cldr`` is shipped: 1,644 names of emoji, from abacus to zzz; its source and licence stand in the file's head.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from rmadapter.data.task import class_key
from rmadapter.errors import DataError

FOLDER = Path(__file__).parent
SHIPPED = ("cldr",)
"""Lists inside the package."""


def names(source: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a shipped list, or of a file with one a line; ``#`` begins a comment, and none stands twice.

    Args:
        source: the list's name, the file's path, or the names themselves.

    Raises:
        DataError: when there is no such file, it is no text in UTF-8, or it holds no name.
    """
    if not isinstance(source, str):
        return tuple(source)
    file = FOLDER / f"{source}.txt" if source in SHIPPED else Path(source)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{source} is not a readable list of names",
            got=str(error),
            allowed=f"{', '.join(SHIPPED)}, or a file in UTF-8 with one name a line",
        ) from error
    found = (line.strip() for line in lines if not line.startswith("#"))
    unique = {class_key(name): name for name in found if name}
    if not unique:
        raise DataError(f"{source} holds no names", remedy="write one name a line")
    return tuple(unique.values())


def without(pool: Iterable[str], taken: Iterable[str]) -> tuple[str, ...]:
    """The names of ``pool`` that are none of ``taken``."""
    known = {class_key(name) for name in taken}
    return tuple(name for name in pool if class_key(name) not in known)


def draw(source: str | Sequence[str], classes: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """``count`` names that are no classes, drawn by a seed; where there are just as many, these in their order.

    Raises:
        DataError: when there are fewer, or as for ``names``.
    """
    pool = without(names(source), classes) if count else ()
    if len(pool) < count:
        raise DataError(
            "there are too few auxiliary names",
            got=f"{len(pool)} that are no class",
            allowed=f"{count} or more: a --method.dimension of {count + len(classes)} less {len(classes)} classes",
            remedy="lower --method.dimension, or name a longer list by --method.auxiliary",
        )
    return pool if len(pool) == count else tuple(random.Random(f"auxiliary-{seed}").sample(sorted(pool), count))
