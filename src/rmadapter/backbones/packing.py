"""Prompts that begin alike as one sequence of rows: the rows that they share once, then each prompt's own.

Attention is causal, so a row depends on those before it alone: rows that begin every prompt are the same in all of them
and are computed once, and rows behind the pooled one are left out. No prompt is padded: shorter ones come first, and
attention runs over tiles of prompts of one length, in which a mask keeps them apart, or over all rows at once where
these are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 32
"""Rows of a tile, about: products of prompts of a few rows each would be too small to be quick."""
FEW = 12_000_000
"""Rows times rows times width up to which one product, most of it masked, is quicker than several over tiles."""


class Tile(NamedTuple):
    """Tiles that are alike, one behind the other: ``times`` times ``prompts`` prompts of ``own`` rows."""

    times: int
    prompts: int
    own: int
    mask: Tensor
    """(prompts own, p + prompts own) True where a row sees a shared one, or one of the tile's."""

    @property
    def rows(self) -> int:
        """Of all of these tiles."""
        return self.times * self.prompts * self.own


@dataclass(frozen=True)
class Packed:
    """Where the rows of c prompts lie in a sequence of l rows."""

    shared: int
    """p: rows that every prompt begins with; they come first."""
    tiles: tuple[Tile, ...]
    """The prompts' own rows, prompt after prompt, those with fewer rows first."""
    position: Tensor
    """(l,) a row's place in its prompt."""
    last: Tensor
    """(c,) the row that is pooled, prompt after prompt as they lie here."""
    order: Tensor
    """(c,) where the prompts as they were given lie among those here."""
    total: int
    """Rows of all prompts, the shared ones counted for each; a part of a sequence keeps those of the whole."""
    whole: bool = False
    """Are rows behind the pooled one here too?"""

    def __len__(self) -> int:
        return len(self.last)

    @property
    def sizes(self) -> list[int]:
        """Own rows of every prompt, as they lie here."""
        return [tile.own for tile in self.tiles for _ in range(tile.times * tile.prompts)]

    @cached_property
    def sees(self) -> Tensor:
        """(l, l) True where a row sees another: one before it that is shared, or of its own prompt."""
        own = torch.tensor(self.sizes, device=self.position.device)
        prompt = torch.arange(len(own), device=own.device).repeat_interleave(own)
        prompt = torch.cat([prompt.new_full((self.shared,), -1), prompt])
        return ((prompt == -1) | (prompt == prompt[:, None])).tril()

    def few(self, width: int) -> bool:
        """Is it quicker to attend to all rows at once?"""
        return len(self.position) ** 2 * width <= FEW

    @property
    def weight(self) -> Tensor:
        """(l,) how many prompts have a row: all of them the shared ones."""
        return 1.0 + (len(self) - 1) * (torch.arange(len(self.position), device=self.position.device) < self.shared)

    def split(self, rows: int) -> Iterator[tuple[Tensor, slice, Packed]]:
        """Sequences of at most so many rows, of one prompt at least, with the indices here of the rows of each (l,).

        Its prompts are those of the slice, in the order in which they lie here.
        """
        sizes, first, start = self.sizes, 0, self.shared
        while first < len(sizes):
            end, stop = first + 1, start + sizes[first]
            while end < len(sizes) and self.shared + stop - start + sizes[end] <= rows:
                end, stop = end + 1, stop + sizes[end]
            yield self._part(slice(first, end), start, sizes[first:end])
            first, start = end, stop

    def _part(self, prompts: slice, start: int, sizes: list[int]) -> tuple[Tensor, slice, Packed]:
        device = self.position.device
        own = torch.arange(start, start + sum(sizes), device=device)
        index = torch.cat([torch.arange(self.shared, device=device), own])
        last, order = self.last[prompts] - (start - self.shared), torch.arange(len(sizes), device=device)
        tiles = _tiles(sizes, self.shared, device)
        return index, prompts, Packed(self.shared, tiles, self.position[index], last, order, self.total, self.whole)


def pack(ids: Tensor, cut: bool = True) -> tuple[Tensor, Packed]:
    """Token ids (c, context) to those of one sequence (1, l), and where the prompts lie in it.

    Args:
        cut: leave out rows behind the end token, which has the largest id of a prompt.
    """
    pool = ids.argmax(dim=-1)
    alike = (ids == ids[0]).all(dim=0).int().cumprod(dim=0)  # 1 up to the first place where two prompts differ
    shared = min(int(alike.sum()), int(pool.min()))
    sizes = pool + 1 - shared if cut else torch.full_like(pool, ids.shape[1] - shared)
    sizes, prompts = sizes.sort(stable=True)
    starts = shared + sizes.cumsum(0) - sizes
    row = torch.arange(shared, shared + int(sizes.sum()), device=ids.device)
    position = shared + row - starts.repeat_interleave(sizes)
    taken = ids[prompts.repeat_interleave(sizes), position]
    position = torch.cat([torch.arange(shared, device=ids.device), position])
    last, total = starts + pool[prompts] - shared, int(sizes.sum()) + shared * len(ids)
    tiles = _tiles(sizes.tolist(), shared, ids.device)
    packed = Packed(shared, tiles, position, last, prompts.argsort(), total, not cut)
    return torch.cat([ids[0, :shared], taken])[None], packed


def _tiles(sizes: Sequence[int], shared: int, device: torch.device) -> tuple[Tile, ...]:
    """Prompts with so many rows of their own, in ascending order, as tiles; those left over make a smaller one."""
    found = []
    for own, group in groupby(sizes):
        count, most = len(list(group)), max(1, TILE // own)
        for times, prompts in ((count // most, most), (1, count % most)):
            if times and prompts:
                row = torch.arange(prompts * own, device=device)
                sees = (row <= row[:, None]) & (row // own == row[:, None] // own)
                found.append(Tile(times, prompts, own, F.pad(sees, (shared, 0), value=True)))
    return tuple(found)


def attend(qkv: Tensor, packed: Packed) -> Tensor:
    """Causal attention within every prompt: (b, l, 3, heads, channels) to (b, l, w)."""
    if packed.few(qkv.shape[-2] * qkv.shape[-1]):
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        return _joined(F.scaled_dot_product_attention(q, k, v, attn_mask=packed.sees))
    shared, *own = qkv.split([packed.shared, *(tile.rows for tile in packed.tiles)], dim=1)
    q, *before = shared.unbind(2)
    found = []
    if packed.shared:
        q, k, v = (x.transpose(1, 2) for x in (q, *before))
        found.append(_joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
    for tile, rows in zip(packed.tiles, own, strict=True):
        q, *seen = _apart(rows, tile).unbind(2)
        found.append(_attend(q, before, seen, tile.mask).reshape(len(qkv), tile.rows, -1))
    return torch.cat(found, dim=1)


def attend_last(q: Tensor, kv: Tensor, packed: Packed) -> Tensor:
    """The same for the prompts' last rows alone: q (b, c, heads, channels), kv (b, l, 2, …) to (b, c, w)."""
    if packed.few(kv.shape[-2] * kv.shape[-1]):
        k, v = (x.transpose(1, 2) for x in kv.unbind(2))
        return _joined(F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=packed.sees[packed.last]))
    shared, *own = kv.split([packed.shared, *(tile.rows for tile in packed.tiles)], dim=1)
    last = q.split([tile.times * tile.prompts for tile in packed.tiles], dim=1)
    found = []
    for tile, rows, asked in zip(packed.tiles, own, last, strict=True):
        mask = tile.mask[tile.own - 1 :: tile.own]
        out = _attend(_apart(asked, tile), shared.unbind(2), _apart(rows, tile).unbind(2), mask)
        found.append(out.reshape(len(q), tile.times * tile.prompts, -1))
    return torch.cat(found, dim=1)


def _attend(q: Tensor, before: Sequence[Tensor], seen: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Of the rows of tiles: keys and values of shared rows (b, p, …) stand before those of each tile (b times, …)."""
    times = len(q) // len(before[0])
    k, v = (torch.cat([_repeat(x, times), y], dim=1).transpose(1, 2) for x, y in zip(before, seen, strict=True))
    return _joined(F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask))


def _repeat(x: Tensor, times: int) -> Tensor:
    """(b, …) to (b times, …), every one of b so many times."""
    return x.unsqueeze(1).expand(-1, times, *x.shape[1:]).flatten(0, 1)


def _apart(x: Tensor, tile: Tile) -> Tensor:
    """(b, times l, …) to (b times, l, …)."""
    return x.reshape(len(x) * tile.times, -1, *x.shape[2:])


def _joined(x: Tensor) -> Tensor:
    """(b, heads, l, channels) to (b, l, w)."""
    return x.transpose(1, 2).flatten(2)
