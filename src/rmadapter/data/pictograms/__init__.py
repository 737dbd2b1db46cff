"""Pictograms: ten tasks of emoji artwork that live inside the package, so that everything runs offline.

A class is a concept with a name of its own; its images are scenes (see scene.py) of up to four pieces of artwork of
that concept, one a style. Scenes are drawn when they are opened. Whole families of styles are kept out of the small
CLIP's pre-training, so these styles are new to it while the concepts are known. ``tools/pictograms/build.py`` made
the files here; ATTRIBUTION.md names the artists and licences.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rmadapter.data.task import Item, Task
from rmadapter.errors import DataError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FOLDER = Path(__file__).parent
TEMPLATE = "a pictogram of a {}."
STYLES = ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-high-contrast", "fxemoji")
MONO = frozenset({"fluent-emoji-high-contrast"})
"""Styles of one colour: their artwork is recoloured in every scene."""

SIZE = 64
"""Side of a scene in pixels."""

IMAGES = {"train": 24, "val": 8, "test": 16}
"""Images a class and split: enough for 16 shots in several draws, 4 validation shots, and four tests a style."""

CACHED_SPRITES = 2048
"""Decoded sprites that are kept, 16 kB each: 32 MiB, all styles of the four largest tasks."""


@dataclass(frozen=True)
class Concept:
    """A class: hex id of its emoji, name, and the styles that draw it."""

    hex: str
    name: str
    styles: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """One image of a task, drawn when it is opened; the fields say which."""

    task: str
    concept: str
    style: str
    index: int
    part: str

    @property
    def name(self) -> str:
        """For example ``animals/1f43c/fluent-emoji-flat/train/3``."""
        return f"{self.task}/{self.concept}/{self.style}/{self.part}/{self.index}"

    def open(self) -> Image:
        """The scene in RGB, 64 x 64."""
        from PIL import Image

        from rmadapter.data.pictograms.scene import scene

        key = (self.concept, self.style, self.part, self.index)
        other = sprite(self._distractor(key), self.style)
        pixels = scene(sprite(self.concept, self.style), self.style in MONO, key, SIZE, other)
        return Image.fromarray(pixels)

    def _distractor(self, key: tuple[str | int, ...]) -> str:
        """Another concept of the task that the style draws."""
        others = [c.hex for c in concepts(self.task) if self.style in c.styles and c.hex != self.concept]
        draw = hashlib.sha256(repr(("distractor", *key)).encode()).digest()[:8]
        return others[int.from_bytes(draw, "little") % len(others)]


def task_names() -> tuple[str, ...]:
    """The tasks, without the ``pictograms/`` that their full names start with."""
    return tuple(sorted(_themes()))


def load(name: str) -> Task:
    """A task by its short name, such as ``animals``. Raises DataError naming the known ones for any other name.

    The artwork of an image is ``styles[(index + label) % len(styles)]``, so that every split has every style, in equal
    shares up to one.
    """
    if name not in _themes():
        raise unknown("task", name, task_names(), DataError)
    classes = concepts(name)
    items = {part: tuple(_items(name, part, count)) for part, count in IMAGES.items()}
    note = "24 train, 8 val and 16 test scenes a class, drawn from a hash of concept, style, split and index"
    return Task(
        f"pictograms/{name}",
        tuple(concept.name for concept in classes),
        TEMPLATE,
        items["train"],
        items["val"],
        items["test"],
        note,
    )


def _items(task: str, part: str, count: int) -> list[Item]:
    return [
        Item(label, Scene(task, concept.hex, concept.styles[(index + label) % len(concept.styles)], index, part))
        for label, concept in enumerate(concepts(task))
        for index in range(count)
    ]


def concepts(task: str) -> tuple[Concept, ...]:
    """The classes of a task in label order: by the hash of their hex id, so that neither alphabet nor CLDR subgroup
    decides which are base and which are novel classes.
    """
    return _themes()[task]


@lru_cache(maxsize=1)
def _themes() -> dict[str, tuple[Concept, ...]]:
    rows = json.loads((FOLDER / "concepts.json").read_text(encoding="utf-8"))
    found: dict[str, list[Concept]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["hex"].encode()).hexdigest()):
        styles = tuple(style for style in STYLES if style in row["styles"])
        found[row["theme"]].append(Concept(row["hex"], row["name"], styles))
    return {theme: tuple(classes) for theme, classes in found.items()}


@lru_cache(maxsize=CACHED_SPRITES)
def sprite(concept: str, style: str) -> NDArray[np.uint8]:
    """A piece of artwork as (64, 64, 4) RGBA, read-only since callers share it."""
    import numpy as np
    from PIL import Image

    # Opened for each sprite: a handle that stays open would be shared by forked loader processes. Reading the
    # directory takes a few milliseconds, so that is cached, and the artwork is stored without compression.
    start, length = _directory(style)[f"{concept}.webp"]
    with (FOLDER / "sprites" / f"{style}.zip").open("rb") as file:
        file.seek(start)
        content = file.read(length)
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.array(image.convert("RGBA"))
    pixels.flags.writeable = False
    return pixels


@lru_cache(maxsize=len(STYLES))
def _directory(style: str) -> dict[str, tuple[int, int]]:
    """Where each stored file of a style's zip starts, and its length."""
    local_header = 30  # bytes before the file's name, which is the same here as in the directory; no extra field
    with zipfile.ZipFile(FOLDER / "sprites" / f"{style}.zip") as archive:
        return {
            entry.filename: (entry.header_offset + local_header + len(entry.filename), entry.file_size)
            for entry in archive.infolist()
        }
