"""Learned rows in the place of words, and what the methods share that learn them.

A context of n rows (n, w) stands in for the first n words (tokens) of the prompt, behind the start token. Where a
template has fewer words before the class name, placeholders make room in front of them; their rows start at random.
Deep prompts take its place again before each of the next blocks: n rows of text, and the last n rows of an image.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from rmadapter.backbones.clip import TowerName
from rmadapter.errors import DataError, SettingError
from rmadapter.method import Method, Rows
from rmadapter.settings import Settings

PLACEHOLDER = "X "
"""One token, and never read: a learned row takes its place."""
STD = 0.02
"""Of rows that start at random, in every published method."""


class ContextSettings(Settings):
    """Of the context."""

    length: PositiveInt = 4
    """n: how many rows are learned in place of words? 4 is the length of "a photo of a"."""
    initial: Literal["words", "random"] = "words"
    """Does the context start from the template's words, or at random in place of all words before the class name?"""


class DeepSettings(ContextSettings):
    """Of the context and of the prompts that follow it."""

    depth: PositiveInt | None = None
    """J: how many blocks get learned rows, from the first on? None: 3/4 of the tower (9 of 12, 4 of 6)."""


class ContextMethod(Method):
    """Text prompts that begin with a learned context, the same for all classes. Images are left alone."""

    settings: ContextSettings

    def build(self) -> None:
        room = self.backbone.shape.context - 3  # start, a name of one token, end
        if self.settings.length > room:
            raise SettingError(
                f"a context of that length leaves no room for a class name in {self.backbone.name}",
                got=self.settings.length,
                allowed=f"1 to {room}",
            )
        self.context = nn.Parameter(self._first(self.template))

    def random_rows(self, tower: TowerName) -> nn.Parameter:
        """(n, w) of normal values."""
        return nn.Parameter(torch.randn(self.settings.length, self.backbone.tower(tower).width) * STD)

    def start(self, classes: tuple[str, ...], template: str) -> None:
        if torch.equal(self.context, self._first(self.template).to(self.context)):  # else it has learned something
            with torch.no_grad():
                self.context.copy_(self._first(template))
        super().start(classes, template)

    def _first(self, template: str) -> Tensor:
        """The context (n, w) before training: its last rows are the first words of the template, others are random."""
        s, tower = self.settings, self.backbone.tower("text")
        own = torch.Generator().manual_seed(random.Random(f"context-{self.seed}").getrandbits(63))
        rows = torch.randn(s.length, tower.width, generator=own) * STD
        words = self._words(template)[: s.length]
        if words and s.initial == "words":
            rows[-len(words) :] = tower.rows(torch.tensor([words], device=self.backbone.device))[0].to(rows)
        return rows

    def _words(self, template: str) -> list[int]:
        """Tokens before the class name."""
        return self.backbone.tokenizer.encode(template.partition("{}")[0].strip())

    def prompt(self, template: str) -> str:
        if self.settings.initial == "random":
            return PLACEHOLDER * self.settings.length + "{}" + template.partition("{}")[2]
        return PLACEHOLDER * (self.settings.length - len(self._words(template))) + template

    def begin_text(self, classes: Sequence[str], template: str | None = None) -> Rows:
        rows = super().begin_text(classes, template)
        if rows.packed is not None and rows.packed.shared <= self.settings.length:  # seams write rows that all share
            raise DataError(
                "the words before {} run into class names, so a context cannot take their place",
                got=repr(template or self.template),
                remedy="write a space before {}",
            )
        return rows

    def touches(self, tower: TowerName) -> range:
        return range(1 if tower == "text" else 0)

    def tokens(self, tower: TowerName, x: Tensor, image: Tensor | None = None) -> Tensor:
        return overwrite(x, self.context, 1)


class DeepPromptMethod(ContextMethod):
    """Learned rows in both towers: words replaced and rows appended, and both replaced again before the next blocks."""

    settings: DeepSettings

    def build(self) -> None:
        least = min(self.backbone.shape.image.depth, self.backbone.shape.text.depth)
        if self.settings.depth is not None and self.settings.depth > least:
            raise SettingError(
                f"depth goes beyond a tower of {self.backbone.name}",
                got=self.settings.depth,
                allowed=f"1 to {least}",
                remedy="leave it out: it then follows the towers",
            )
        super().build()

    def rows(self, tower: TowerName, i: int) -> Tensor:
        """The rows (n, w) of block ``i``, from 0; those of block 0 enter the tower."""
        raise NotImplementedError

    def depth(self, tower: TowerName) -> int:
        """How many blocks get learned rows."""
        return self.settings.depth or max(1, 3 * self.backbone.tower(tower).depth // 4)

    def touches(self, tower: TowerName) -> range:
        return range(self.depth(tower))

    def tokens(self, tower: TowerName, x: Tensor, image: Tensor | None = None) -> Tensor:
        rows = self.rows(tower, 0)
        return overwrite(x, rows, 1 if tower == "text" else x.shape[1])

    def before(self, tower: TowerName, i: int, x: Tensor) -> Tensor:
        if i == 0:
            return x
        return overwrite(x, self.rows(tower, i), 1 if tower == "text" else x.shape[1] - self.settings.length)


def overwrite(x: Tensor, rows: Tensor, at: int) -> Tensor:
    """Rows (n, w), or (b, n, w), in the place of those of x (b, l, w) from ``at`` on; at ``l`` they are appended."""
    rows = rows.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :at], rows, x[:, at + rows.shape[1] :]], dim=1)
