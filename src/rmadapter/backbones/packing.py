"""Prompts that begin alike as one sequence of rows: the rows that they share once, then each prompt's own.

Attention is causal, so a row depends on those before it alone: rows that begin every prompt are the same in all of them
and are computed once, and rows behind the pooled one are left out. No prompt is padded: shorter ones come first, and
attention runs over those of one length at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Where the rows of c prompts lie in a sequence of l rows."""

    shared: int
    """Rows that every prompt begins with; they come first."""
    groups: tuple[tuple[int, int], ...]
    """Prompts one after another as (how many, own rows of each), those with fewer rows first."""
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
    def weight(self) -> Tensor:
        """(l,) how many prompts have a row: all of them the shared ones."""
        return 1.0 + (len(self) - 1) * (torch.arange(len(self.position), device=self.position.device) < self.shared)

    def each(self) -> Iterator[tuple[int, int, int]]:
        """The groups as (first row, prompts, own rows of each)."""
        at = self.shared
        for count, own in self.groups:
            yield at, count, own
            at += count * own

    def split(self, rows: int) -> Iterator[tuple[Tensor, slice, Packed]]:
        """Sequences of at most so many rows, of one prompt at least, with the indices here of the rows of each (l,).

        Its prompts are those of the slice, in the order in which they lie here.
        """
        starts = [at + k * own for at, count, own in self.each() for k in range(count)]
        sizes = [own for count, own in self.groups for _ in range(count)]
        first = 0
        while first < len(sizes):
            end, total = first + 1, self.shared + sizes[first]
            while end < len(sizes) and total + sizes[end] <= rows:
                total, end = total + sizes[end], end + 1
            yield self._part(slice(first, end), starts[first], sizes[first:end])
            first = end

    def _part(self, prompts: slice, start: int, sizes: list[int]) -> tuple[Tensor, slice, Packed]:
        device = self.position.device
        own = torch.arange(start, start + sum(sizes), device=device)
        index = torch.cat([torch.arange(self.shared, device=device), own])
        groups = tuple((sizes.count(size), size) for size in sorted(set(sizes)))
        last = self.last[prompts] - (start - self.shared)
        order = torch.arange(len(sizes), device=device)
        return index, prompts, Packed(self.shared, groups, self.position[index], last, order, self.total, self.whole)


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
    own, counts = sizes.unique_consecutive(return_counts=True)
    groups = tuple(zip(counts.tolist(), own.tolist(), strict=True))
    starts = shared + sizes.cumsum(0) - sizes
    position = torch.arange(int(sizes.sum()), device=ids.device) + shared
    position = shared + position - starts.repeat_interleave(sizes)
    taken = ids[prompts.repeat_interleave(sizes), position]
    position = torch.cat([torch.arange(shared, device=ids.device), position])
    last, total = starts + pool[prompts] - shared, int(sizes.sum()) + shared * len(ids)
    packed = Packed(shared, groups, position, last, prompts.argsort(), total, not cut)
    return torch.cat([ids[0, :shared], taken])[None], packed


def attend(q: Tensor, k: Tensor, v: Tensor, packed: Packed, pooled: bool = False) -> Tensor:
    """Causal attention within every prompt.

    Args:
        q: (b, l, heads, channels); where ``pooled``, (b, c, heads, channels) of the prompts' last rows alone.
        k, v: (b, l, heads, channels).

    Returns:
        As q, with heads and channels as one dimension.
    """
    p, found, done = packed.shared, list[Tensor](), 0
    if p and not pooled:
        q0, k0, v0 = (x[:, :p].transpose(1, 2) for x in (q, k, v))  # (b, heads, p, channels)
        found.append(_joined(F.scaled_dot_product_attention(q0, k0, v0, is_causal=True)))
        done = p
    for at, count, own in packed.each():
        rows = 1 if pooled else own
        mask = None if pooled else torch.ones(own, p + own, dtype=torch.bool, device=q.device).tril(p)
        key, value = (
            torch.cat([_repeat(x[:, :p], count), _prompts(x[:, at : at + count * own], count)], dim=1) for x in (k, v)
        )
        query = _prompts(q[:, done : done + count * rows], count).transpose(1, 2)  # (b count, heads, rows, channels)
        out = F.scaled_dot_product_attention(query, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)
        found.append(_joined(out).reshape(len(q), count * rows, -1))
        done += count * rows
    return torch.cat(found, dim=1)


def _joined(x: Tensor) -> Tensor:
    """(b, heads, l, channels) to (b, l, w)."""
    return x.transpose(1, 2).flatten(2)


def _prompts(x: Tensor, count: int) -> Tensor:
    """(b, count l, …) to (b count, l, …)."""
    return x.reshape(len(x) * count, -1, *x.shape[2:])


def _repeat(x: Tensor, count: int) -> Tensor:
    """(b, l, …) to (b count, l, …), every one of b ``count`` times."""
    return x.unsqueeze(1).expand(-1, count, *[-1] * (x.ndim - 1)).flatten(0, 1)
