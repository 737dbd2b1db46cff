"""The pre-training artwork and its captions: which names make a batch, and which drawing of a name is shown.

A name is a class: all drawings of a name are positives of one another. Emoji names have drawings in several styles,
and often some of wide icon sets too; the wide vocabulary has the icon sets' only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TEMPLATE = "a pictogram of a {}."
TEMPLATES = (
    *("a pictogram of {}.", "an icon of a {}.", "an emoji of a {}.", "a drawing of a {}."),
    *("{} icon", "a picture of the {}."),
)
BARE, OURS = 0.3, 0.5
"""Share of the batches that are captioned with the bare name, and with the tasks' own template."""
ALIAS = 0.15
"""Share of the captions that are another name of the emoji, where it has one."""
HARD = 0.5
"""Share of the batches that come from as few groups as fill them, so that their negatives are hard."""
EMOJI = 0.65
"""Share of emoji names in the other batches."""
VARIANT = 0.4
"""Weight of an emoji that differs from another in sex, facing or hour only; the others have 1."""
STYLED = 0.7
"""Share of the views of an emoji that show an emoji style, where an icon set draws it too."""

_NOT_MIRRORED = ("left", "right", "clockwise", "north", "south", "east", "west", "flag", "letter")


@dataclass(frozen=True)
class Batch:
    """Names with ``views`` drawings each."""

    sprites: Tensor
    """(names * views, 64, 64, 4) uint8 RGBA; the views of a name follow each other."""
    mono: Tensor
    """(names * views,) whether the drawing has one colour."""
    mirrored: Tensor
    """(names * views,) whether the drawing may be mirrored without meaning something else."""
    captions: list[str]
    labels: Tensor
    """(names,) number of the emoji name, -1 for the wide vocabulary."""


class Artwork:
    """The rendered pack, read through a memory map."""

    def __init__(self, folder: Path) -> None:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.pixels = np.load(folder / "sprites.npy", mmap_mode="r")
        self.sha256: str = index["sha256"]
        self.names: list[str] = [entry["name"] for entry in index["names"]]
        self.aliases: list[list[str]] = [entry["aliases"] for entry in index["names"]]
        styles = index["styles"]
        self.mono = torch.tensor([styles[style]["mono"] for style, _ in index["sprites"]])
        self.styled: dict[int, list[int]] = defaultdict(list)
        self.plain: dict[int, list[int]] = defaultdict(list)
        for position, (style, name) in enumerate(index["sprites"]):
            (self.styled if styles[style]["emoji"] else self.plain)[name].append(position)
        self.emoji = [number for number, entry in enumerate(index["names"]) if entry["group"]]
        self.wide = [number for number, entry in enumerate(index["names"]) if not entry["group"]]
        self.label = {number: label for label, number in enumerate(self.emoji)}
        self.weights = torch.tensor([VARIANT if index["names"][number]["variant"] else 1.0 for number in self.emoji])
        groups: dict[str, list[int]] = defaultdict(list)
        for number in self.emoji:
            groups[index["names"][number]["group"]].append(number)
        self.groups = list(groups.values())
        self.turnable = [not any(word in name for word in _NOT_MIRRORED) for name in self.names]

    def kept_texts(self) -> list[str]:
        """Texts whose pieces the tokenizer must have: emoji names in every template."""
        return [*(self.names[number] for number in self.emoji), *(t.format("x") for t in (TEMPLATE, *TEMPLATES))]

    def counted_texts(self) -> list[str]:
        """Texts whose pieces the tokenizer has where they are common."""
        return [*self.names, *(alias for aliases in self.aliases for alias in aliases)]

    def batch(self, names: int, views: int, generator: torch.Generator) -> Batch:
        """A batch drawn with a generator."""
        chosen = self._names(names, generator)
        draws = torch.rand(len(chosen), views + 2, generator=generator).tolist()
        shown = [sprite for name, draw in zip(chosen, draws, strict=True) for sprite in self._views(name, draw[:views])]
        template = self._template(generator)
        captions = [
            template.format(self._caption(name, draw[views:])) for name, draw in zip(chosen, draws, strict=True)
        ]
        mirrored = torch.tensor([self.turnable[name] for name in chosen]).repeat_interleave(views)
        labels = torch.tensor([self.label.get(name, -1) for name in chosen])
        sprites = torch.from_numpy(self.pixels[shown])
        return Batch(sprites, self.mono[shown], mirrored, captions, labels)

    def _names(self, count: int, generator: torch.Generator) -> list[int]:
        if torch.rand((), generator=generator) < HARD:
            pool: list[int] = []
            for group in torch.randperm(len(self.groups), generator=generator).tolist():
                pool += self.groups[group]
                if len(pool) >= count:
                    break
            weights = self.weights[[self.label[name] for name in pool]]
            return [pool[place] for place in torch.multinomial(weights, count, generator=generator).tolist()]
        emoji = int(count * EMOJI)
        places = torch.multinomial(self.weights, emoji, generator=generator).tolist()
        others = torch.randint(len(self.wide), (2 * count,), generator=generator).unique()
        others = others[torch.randperm(len(others), generator=generator)][: count - emoji].tolist()
        return [*(self.emoji[place] for place in places), *(self.wide[place] for place in others)]

    def _views(self, name: int, draws: list[float]) -> list[int]:
        """Different drawings for the views as far as there are any; each draw also decides which kind is shown."""
        shown: list[int] = []
        for draw in draws:
            styled, plain = self.styled.get(name, []), self.plain.get(name, [])
            kind, draw = (styled, draw / STYLED) if draw < STYLED else (plain, (draw - STYLED) / (1 - STYLED))
            left = [sprite for sprite in kind or styled or plain if sprite not in shown] or styled or plain
            shown.append(left[min(int(draw * len(left)), len(left) - 1)])
        return shown

    def _caption(self, name: int, draws: list[float]) -> str:
        others = self.aliases[name]
        return others[int(draws[1] * len(others))] if others and draws[0] < ALIAS else self.names[name]

    def _template(self, generator: torch.Generator) -> str:
        draw = float(torch.rand((), generator=generator))
        if draw < BARE:
            return "{}"
        if draw < BARE + OURS:
            return TEMPLATE
        return TEMPLATES[int(torch.randint(len(TEMPLATES), (), generator=generator))]
