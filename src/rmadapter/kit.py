"""What the runs of a sweep share in a process: backbones, tasks, hashes of what these hold, decoded test images, and
the frozen blocks' work on training images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmadapter.data import pictograms
from rmadapter.data.check import Broken, find_broken, leave_out
from rmadapter.data.task import ImageFile, Picture, Split, Task
from rmadapter.errors import DataError
from rmadapter.methods import method_class
from rmadapter.protocols import Classes
from rmadapter.recipe import Recipe
from rmadapter.store import digest

TaskKey = tuple[str, int, str | None, bool, str]


@dataclass
class Kit:
    """Loads, hashes and decodes everything once.

    Args:
        device: of the backbones.
        jobs: processes that share the machine; each takes its part of the bytes for decoded images and frozen rows.
        skipped: by task, images that were found to be unreadable; where a task is not in it, its images are tried.
    """

    device: str
    jobs: int = 1
    skipped: Mapping[str, Sequence[Broken]] = field(default_factory=dict)
    _backbones: dict[tuple[str, str | None], Any] = field(default_factory=dict)
    _tasks: dict[TaskKey, Task] = field(default_factory=dict)
    _hashes: dict[tuple[object, ...], str] = field(default_factory=dict)
    _pixels: Any = None
    _shared: Any = None
    _looked: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def backbone(self, recipe: Recipe) -> Any:
        """The recipe's backbone."""
        from rmadapter.backbones import load_backbone

        key = (recipe.backbone, recipe.pretrained)
        if key not in self._backbones:
            self._backbones[key] = load_backbone(*key, device=self.device)
        return self._backbones[key]

    def weights(self, recipe: Recipe) -> str:
        """Hash of the recipe's backbone, wherever it was read from."""
        return _identity(self.backbone(recipe))

    def task(self, data: str, recipe: Recipe) -> Task:
        """A task, split as the recipe says, without the images that cannot be read where it says so."""
        from rmadapter.run import load_recipe_task

        key = _key(data, recipe)
        if key not in self._tasks:
            task = load_recipe_task(recipe.model_copy(update={"data": data}))
            if recipe.skip_broken:
                if data not in self.skipped:
                    self.skipped = {**self.skipped, data: find_broken(task.train, task.val, task.test)}
                task = leave_out(task, self.skipped[data])
            self._tasks[key] = task
        return self._tasks[key]

    def part(self, data: str, classes: Classes, recipe: Recipe) -> Task:
        """The same, cut to some classes."""
        from rmadapter.run import cut

        return cut(self.task(data, recipe), classes)

    def learned(self, recipe: Recipe) -> str:
        """Hash of what a recipe learns from: the task with all its names and labels, and the content of the shots.

        Of methods that are solved also that of the validation items, which may choose their settings.
        """
        whole, solved = _key(recipe.data, recipe), method_class(recipe.method).solved

        def drawn() -> str:
            shots = self.part(recipe.data, recipe.classes, recipe).shots(recipe.shots, recipe.seed)
            task = self._once(whole, self.task(recipe.data, recipe).sha256)
            read = [shots.train, shots.val] if solved and len(shots.val) else [shots.train]
            return digest([task, *([self._content(item.picture) for item in split] for split in read)])

        return self._once((*whole, recipe.classes, recipe.shots, recipe.seed, solved), drawn)

    def tested(self, data: str, classes: Classes, recipe: Recipe) -> str:
        """Hash of what is scored on: prompt, class names, and the labels and content of the test items."""

        def content() -> str:
            part = self.part(data, classes, recipe)
            items = [(item.label, self._content(item.picture)) for item in part.test]
            return digest([part.template, part.classes, items])

        return self._once((*_key(data, recipe), classes), content)

    def _content(self, picture: Picture) -> str:
        """What stands for an image's pixels: its file's bytes, or its scene and the artwork in it."""
        if isinstance(picture, ImageFile):
            return self._once((picture.path,), lambda: _file_hash(picture.path))
        return f"{pictograms.version()} {picture.name}"

    def _once(self, key: tuple[object, ...], make: Callable[[], str]) -> str:
        if key not in self._hashes:
            self._hashes[key] = make()
        return self._hashes[key]

    def look(self, backbone: Any, split: Split) -> Any:
        """Features of a frozen backbone for a split's items, as ``solve.frozen_features`` gives them."""
        from rmadapter.solve import frozen_features

        key = (_identity(backbone), *(item.picture for item in split))
        if key not in self._looked:
            self._looked[key] = frozen_features(backbone, split, pixels=self.pixels)
        return self._looked[key]

    @property
    def pixels(self) -> Any:
        """Decoded images."""
        from rmadapter.data.loader import MEMORY, Pixels

        if self._pixels is None:
            self._pixels = Pixels(MEMORY // self.jobs)
        return self._pixels

    @property
    def shared(self) -> Any:
        """Frozen rows of training images."""
        from rmadapter.views import MEMORY, SharedRows

        if self._shared is None:
            self._shared = SharedRows(MEMORY // self.jobs, self.jobs)
        return self._shared


def _identity(backbone: Any) -> str:
    """Hash of what a backbone computes: equal weights with another activation or preprocessing are another one."""
    identity = backbone.identity()
    return digest({key: identity[key] for key in ("sha256", "shape", "preprocess")})


def _key(data: str, recipe: Recipe) -> TaskKey:
    return data, recipe.split_seed, recipe.template, recipe.skip_broken, recipe.test_on


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error.strerror, remedy="repair or remove it") from error
