"""Item, Split and Task: what there is to learn, with no tensor and no torch in it."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rmadapter.data import fewshot
from rmadapter.errors import DataError
from rmadapter.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image


PHOTO = "a photo of a {}."
TWICE = frozenset({"missile", "sunglasses"})
"""Names that two classes each have in ImageNet's published list. All published numbers were computed with them, so they
are kept: their prompts are the same, and nearly all images of one class of each pair count as wrong."""


class Manifest(Settings):
    """What a run writes down of its task: class names, and the names and labels of every split's items."""

    task: str
    """Its name."""
    data: str | None
    """The folder that relative names count from; none for a task inside the package."""
    template: str
    """The prompt."""
    classes: tuple[str, ...]
    """In label order."""
    note: str
    """What was read, how the splits came about, and what was left out."""
    train: tuple[tuple[str, int], ...]
    """Learned from."""
    val: tuple[tuple[str, int], ...]
    """Settings may be chosen on these."""
    test: tuple[tuple[str, int], ...]
    """Scored on."""
    teacher_template: str | None = None
    """See ``Task``."""
    sizes: tuple[int, ...] | None = None
    """Bytes of the images' files, in the order of ``names``: other files may have the same names. None: not noted."""

    def names(self) -> list[str]:
        """Of all images."""
        return [name for part in (self.train, self.val, self.test) for name, _ in part]

    def sized(self) -> dict[str, int | None]:
        """All images' names, and the sizes of their files. Raises DataError where these are not as many."""
        names = self.names()
        if self.sizes and len(self.sizes) != len(names):
            raise DataError(
                f"a split of {self.task} has been changed: it has not as many sizes as images",
                got=f"{len(self.sizes)} for {len(names)}",
                remedy="restore its task.json",
            )
        return dict(zip(names, self.sizes or [None] * len(names), strict=True))


class Picture(Protocol):
    """Where an image comes from: a file, or a scene that is drawn on demand."""

    @property
    def name(self) -> str:
        """A name that is the same on every machine; it enters the split's hash."""
        ...

    def open(self) -> Image:
        """The image in RGB."""
        ...


@dataclass(frozen=True)
class ImageFile:
    """An image on disk."""

    path: Path
    name: str
    """Path relative to the task's folder, or an absolute one, with forward slashes."""

    def open(self) -> Image:
        """The image in RGB, upright. Raises DataError naming a file that cannot be read."""
        from rmadapter.data.images import read_image

        return read_image(self.path)

    @property
    def size(self) -> int:
        """Bytes; -1 for a file that cannot be looked at."""
        try:
            return self.path.stat().st_size
        except OSError:
            return -1


@dataclass(frozen=True)
class Item:
    """One image and the index of its class."""

    label: int
    picture: Picture


@dataclass(frozen=True)
class Split:
    """Items with the class list that their labels index."""

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    task: str = ""
    part: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def labels(self) -> list[int]:
        """The label of every item."""
        return [item.label for item in self.items]

    def only(self, labels: Sequence[int]) -> Split:
        """The items of some classes, relabelled from 0 in the order of ``labels``."""
        new = {old: index for index, old in enumerate(labels)}
        items = tuple(Item(new[item.label], item.picture) for item in self.items if item.label in new)
        return replace(self, items=items, classes=tuple(self.classes[old] for old in labels))


@dataclass(frozen=True)
class Task:
    """A classification task: class names, a template, and three disjoint splits.

    Args:
        name: for people and for the store.
        classes: class names in label order, non-empty and unique (see ``TWICE``).
        template: the prompt with ``{}`` where the class name goes; a task owns its template.
        train, val, test: items whose labels index ``classes``.
        note: what was read, how the splits came about, and what was left out; written into a run's folder.
    """

    name: str
    classes: tuple[str, ...]
    template: str
    train_items: tuple[Item, ...] = field(repr=False)
    val_items: tuple[Item, ...] = field(repr=False)
    test_items: tuple[Item, ...] = field(repr=False)
    note: str = ""
    root: Path | None = field(default=None, compare=False)
    """The folder that the items' names count from; None for a task inside the package."""
    teacher_template: str | None = field(default=None, compare=False)
    """The prompt that was written for these very classes, of a public data set, which a teacher reads whatever template
    is in use (KgCoOp); None: that is the template in use."""

    def __post_init__(self) -> None:
        check_class_names(self.classes, self.name)
        check_template(self.template)

    @property
    def train(self) -> Split:
        """What may be learned from."""
        return Split(self.train_items, self.classes, self.name, "train")

    @property
    def val(self) -> Split:
        """What settings may be chosen on."""
        return Split(self.val_items, self.classes, self.name, "val")

    @property
    def test(self) -> Split:
        """What scores are computed on, and nothing else."""
        return Split(self.test_items, self.classes, self.name, "test")

    def shots(self, shots: int, seed: int) -> Task:
        """The task with ``shots`` training items and min(shots, 4) validation items a class; the test split is whole.

        As in the published code, the draw is over all classes of the task that it is called on. ``task.base()`` and
        ``task.shots()`` may come in either order: both give the published draw, since a task that was cut to some
        classes remembers the whole (see ``base``). Where a class has fewer training items all are taken, and the
        note says so.
        """
        if shots < 1:
            raise DataError("shots must be 1 or more", got=shots)
        whole = self._whole or self
        train, val = fewshot.few_shot(whole.train_items, whole.val_items, shots, seed)
        said = self.scarce(shots)
        note = f"{self.note}; {said}" if said and said not in self.note else self.note
        drawn = replace(whole, train_items=tuple(train), val_items=tuple(val), note=note)
        return drawn if self._kept is None else drawn._only(self._kept, whole=drawn)

    def scarce(self, shots: int) -> str:
        """A sentence on the classes that have fewer than ``shots`` training images; empty where there is none."""
        return fewshot.scarce(self.train.labels, self.classes, shots)

    def base(self) -> Task:
        """The first ceil(n / 2) classes, relabelled from 0."""
        return self._only(fewshot.base_novel(range(len(self.classes)))[0])

    def novel(self) -> Task:
        """The other classes, relabelled from 0."""
        novel = fewshot.base_novel(range(len(self.classes)))[1]
        if not novel:
            raise DataError(f"task {self.name!r} has one class, so it has no novel classes")
        return self._only(novel)

    # A task that was cut to some classes keeps the whole it was cut from: shots are drawn over all classes, so that
    # the base images of a seed are a subset of the all-class images of that seed, as in the published code.
    _whole: Task | None = field(default=None, repr=False, compare=False)
    _kept: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    def _only(self, labels: Sequence[int], whole: Task | None = None) -> Task:
        kept = tuple(labels)
        cut = [split.only(kept).items for split in (self.train, self.val, self.test)]
        classes = tuple(self.classes[label] for label in kept)
        if whole is None:  # indices into the whole task, also where an already cut task is cut again
            whole, kept = self._whole or self, tuple(self._kept[i] for i in kept) if self._kept else kept
        return replace(
            self, classes=classes, train_items=cut[0], val_items=cut[1], test_items=cut[2], _whole=whole, _kept=kept
        )

    def with_template(self, template: str) -> Task:
        """The same items under another prompt."""
        return replace(self, template=template, _whole=self._whole and self._whole.with_template(template))

    def without_test(self) -> Task:
        """The task as settings are chosen on: validation items stand as test items, and nothing holds those."""
        if not self.val_items:
            raise DataError(f"task {self.name!r} has no validation items", remedy="score test items, or split it anew")
        whole = self._whole and self._whole.without_test()
        return replace(self, val_items=(), test_items=self.val_items, _whole=whole)

    def manifest(self, sizes: bool = False) -> Manifest:
        """What can be written down, and read again by ``data.readers.read_manifest``; with files' sizes, if wanted."""
        rows = {
            part: tuple((item.picture.name, item.label) for item in split)
            for part, split in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        root = None if self.root is None else str(self.root.resolve())
        files = (
            [item.picture for split in (self.train, self.val, self.test) for item in split] if sizes and root else []
        )
        return Manifest(
            task=self.name,
            data=root,
            template=self.template,
            classes=self.classes,
            note=self.note,
            teacher_template=self.teacher_template,
            sizes=tuple(file.size for file in files if isinstance(file, ImageFile)) or None,
            **rows,
        )

    def sha256(self) -> str:
        """Hash of class names, template and splits (names and labels, not pixels)."""
        deciding = {"template", "classes", "train", "val", "test"}
        if self.teacher_template not in (None, self.template):
            deciding.add("teacher_template")
        content = self.manifest().model_dump(mode="json", include=deciding)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def class_key(name: str) -> str:
    """What two class names are compared by: lower case, NFC, underscores as spaces."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").lower().split())


def check_class_names(classes: Sequence[str], where: str) -> None:
    """Raise DataError for an empty or duplicate class name (compared by ``class_key``).

    The two names that ImageNet has twice may stand twice.
    """
    if not classes:
        raise DataError(f"{where}: no classes")
    seen: dict[str, str] = {}
    for name in classes:
        key = class_key(name)
        if not key:
            raise DataError(f"{where}: an empty class name", got=repr(name), remedy="give every class a name")
        if key in seen and key not in TWICE:
            raise DataError(
                f"{where}: two classes have the same name, and a prompt could not tell them apart",
                got=f"{seen[key]!r} and {name!r}",
                remedy="rename one of them or merge them",
            )
        seen[key] = name


def check_template(template: str) -> None:
    """Raise DataError unless the template has exactly one ``{}``."""
    if template.count("{}") != 1:
        raise DataError(
            "a template needs exactly one {} for the class name", got=repr(template), remedy='write "a photo of a {}."'
        )
