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
from collections.abc import Iterator, Sequence
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
FLUENT = ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-high-contrast")
"""One family: flat, shaded and one-colour forms of the same drawings."""
FXEMOJI = ("fxemoji",)
"""Another family, which draws fewer concepts."""
STYLES = FLUENT + FXEMOJI
MONO = frozenset({"fluent-emoji-high-contrast"})
"""Styles of one colour: their artwork is recoloured in every scene."""

WIDE = "wide"
"""The task of all kinds of things: the source of transfer to the themes, which share no class with it."""


@dataclass(frozen=True)
class Domain:
    """Where the images of a task come from."""

    about: str
    train: tuple[str, ...]
    """Styles that training and validation items are drawn in; none: the task is for testing."""
    test: tuple[str, ...]
    """Styles that test items are drawn in."""
    part: str = "test"
    """Names the test scenes, so that two domains share none."""
    hard: bool = False
    """Whether test scenes are hard ones."""


THEME_DOMAINS = {
    "": Domain("flat, shaded and one-colour drawings of one family", FLUENT, FLUENT),
    "fxemoji": Domain("another family of drawings, for testing", (), FXEMOJI),
    "strict": Domain("no test drawing is among the shots: train on one family, test on another", FLUENT, FXEMOJI),
}
WIDE_DOMAINS = {
    "": Domain("flat and shaded drawings of one family", FLUENT[:2], FLUENT[:2]),
    "fresh": Domain("the same drawings in new scenes, for testing", (), FLUENT[:2], "fresh"),
    "mono": Domain("one-colour drawings, for testing", (), FLUENT[2:]),
    "hard": Domain("the same drawings in hard scenes, for testing", (), FLUENT[:2], "hard", hard=True),
    "fxemoji": Domain("another family of drawings, for testing", (), FXEMOJI),
}

SIZE = 64
"""Side of a scene in pixels."""

IMAGES = {"train": 24, "val": 8, "test": 16}
"""Images a class and split: enough for 16 shots in several draws, 4 validation shots, and five tests a style."""
WIDE_IMAGES = {"train": 16, "val": 4, "test": 4}
"""Of the wide task, which has many classes."""

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
    hard: bool = False

    @property
    def name(self) -> str:
        """For example ``animals/1f43c/fluent-emoji-flat/train/3``."""
        return f"{self.task}/{self.concept}/{self.style}/{self.part}/{self.index}"

    def open(self) -> Image:
        """The scene in RGB, 64 x 64."""
        from PIL import Image

        from rmadapter.data.pictograms.scene import HARD, USUAL, scene

        key = (self.concept, self.style, self.part, self.index)
        other = sprite(self._distractor(key), self.style)
        pixels = scene(
            sprite(self.concept, self.style), self.style in MONO, key, SIZE, other, HARD if self.hard else USUAL
        )
        return Image.fromarray(pixels)

    def _distractor(self, key: tuple[str | int, ...]) -> str:
        """Another concept of the task that the style draws."""
        others = [c.hex for c in concepts(self.task) if self.style in c.styles and c.hex != self.concept]
        draw = hashlib.sha256(repr(("distractor", *key)).encode()).digest()[:8]
        return others[int.from_bytes(draw, "little") % len(others)]


def task_names() -> tuple[str, ...]:
    """The ten themes and the wide task, without the ``pictograms/`` that their full names start with."""
    return tuple(sorted(_themes()))


def domain_names(task: str) -> tuple[str, ...]:
    """The tasks of other domains beside a task, such as ``wide/mono``."""
    return tuple(f"{task}/{domain}" for domain in _domains(task) if domain)


def _domains(task: str) -> dict[str, Domain]:
    return WIDE_DOMAINS if task == WIDE else THEME_DOMAINS


def load(name: str) -> Task:
    """A task by its short name, such as ``animals``, ``animals/strict`` or ``wide/mono``.

    The artwork of an image is ``styles[(index + label) % len(styles)]``, so that every split has every style, in equal
    shares up to one. Classes that a domain does not draw are left out of it.

    Raises:
        DataError: for any other name, with the known ones.
    """
    task, _, key = name.partition("/")
    if task not in _themes() or key not in _domains(task):
        known = [full for short in task_names() for full in (short, *domain_names(short))]
        raise unknown("task", name, known, DataError)
    domain, counts = _domains(task)[key], WIDE_IMAGES if task == WIDE else IMAGES
    drawn = [concept for concept in concepts(task) if {*domain.train[:1], *domain.test[:1]} <= set(concept.styles)]
    items = {part: tuple(_items(task, drawn, domain.train, part, counts[part])) for part in ("train", "val")}
    test = tuple(_items(task, drawn, domain.test, domain.part, counts["test"], domain.hard))
    scenes = " and ".join(f"{counts[part]} {part}" for part in counts if part == "test" or domain.train)
    note = f"{domain.about}; {scenes} scenes a class, drawn from a hash of concept, style, split and index"
    names = tuple(concept.name for concept in drawn)
    return Task(f"pictograms/{name}", names, TEMPLATE, items["train"], items["val"], test, note)


def _items(
    task: str, classes: Sequence[Concept], allowed: tuple[str, ...], part: str, count: int, hard: bool = False
) -> Iterator[Item]:
    for label, concept in enumerate(classes):
        styles = [style for style in allowed if style in concept.styles]
        for index in range(count if styles else 0):
            yield Item(label, Scene(task, concept.hex, styles[(index + label) % len(styles)], index, part, hard))


def concepts(task: str) -> tuple[Concept, ...]:
    """The classes of a task in label order: by the hash of their hex id, so that neither alphabet nor CLDR subgroup
    decides which are base and which are novel classes.
    """
    return _themes()[task]


@lru_cache(maxsize=1)
def version() -> str:
    """Hash of the concepts and of the artwork, by the checksums that the archives hold: other artwork, other scenes."""
    seen = hashlib.sha256((FOLDER / "concepts.json").read_bytes())
    for style in STYLES:
        with zipfile.ZipFile(FOLDER / "sprites" / f"{style}.zip") as archive:
            rows = sorted((entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist())
        seen.update(json.dumps([style, rows]).encode())
    return seen.hexdigest()[:16]


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
