"""Prompts as one sequence of rows give what each gives by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmadapter.backbones import packing
from rmadapter.backbones.clip import pooled_rows
from rmadapter.backbones.packing import attend, attend_last, pack
from small import small_pair

END = 99
PROMPTS = {
    "alike": [[1, 5, 6, 7, END], [1, 5, 6, 8, 9, 10, END], [1, 5, 6, 7, 3, END], [1, 5, 6, 4, END], [1, 5, 6, END]],
    "one": [[1, 5, 6, END]],
    "the same twice": [[1, 5, 6, END], [1, 5, 6, END]],
    "nothing shared": [[1, 5, END], [2, 5, 7, 8, END], [3, END]],
    "the end alone": [[END], [1, END]],
    "many of a length": [[1, 5, *range(6, 6 + n), END] for n in (2, 2, 2, 1, 3, 2)]
    + [[1, 5, 9, 10 + n, END] for n in range(40)],
}


@pytest.fixture(params=list(PROMPTS))
def prompts(request: pytest.FixtureRequest) -> list[list[int]]:
    return PROMPTS[request.param]


def padded(prompts: list[list[int]], context: int = 12) -> Tensor:
    return torch.tensor([prompt + [0] * (context - len(prompt)) for prompt in prompts])


def rows_of(packed_rows: Tensor, prompts: list[list[int]], cut: bool) -> list[Tensor]:
    """Each prompt's rows (l, …) out of a sequence (1, l, …)."""
    ids = padded(prompts)
    _, packed = pack(ids, cut)
    shared, *own = packed_rows[0].split([packed.shared, *packed.sizes])
    return [torch.cat([shared, own[place]]) for place in packed.order.tolist()]


@pytest.mark.parametrize("cut", [True, False])
def test_every_prompt_is_there(prompts: list[list[int]], cut: bool) -> None:
    whole = padded(prompts)
    ids, packed = pack(whole, cut)
    wanted = prompts if cut else whole.tolist()
    assert [rows.tolist() for rows in rows_of(ids, prompts, cut)] == wanted
    places = rows_of(packed.position[None], prompts, cut)
    assert [rows.tolist() for rows in places] == [list(range(len(prompt))) for prompt in wanted]
    assert (ids[0, packed.last] == END).all() and len(packed) == len(prompts)
    assert packed.total == packed.weight.sum() == sum(map(len, wanted))
    assert ids.shape[1] < sum(map(len, wanted)) or packed.shared == 0 or len(prompts) == 1


@pytest.mark.parametrize("rows", [1, 7, 9, 100])
def test_a_sequence_in_parts(prompts: list[list[int]], rows: int) -> None:
    ids, packed = pack(padded(prompts))
    found: list[list[int]] = []
    for index, place, part in packed.split(rows):
        assert place == slice(len(found), len(found) + len(part))
        assert len(part) == 1 or len(index) <= rows
        assert torch.equal(part.position, packed.position[index]) and part.total == packed.total
        shared, *own = ids[0, index].split([part.shared, *part.sizes])
        found += [torch.cat([shared, each]).tolist() for each in own]
        assert (ids[0, index][part.last] == END).all()
    assert [found[place] for place in packed.order.tolist()] == prompts


@pytest.mark.parametrize("few", [0, packing.FEW])
def test_attention_and_its_gradient(prompts: list[list[int]], few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside torch's own, prompt by prompt, in float64; for two sequences at once, in tiles or as a whole."""
    monkeypatch.setattr(packing, "FEW", few)
    ids, packed = pack(padded(prompts))
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, ids.shape[1], 2, 4)  # q, k, v; sequences, rows, heads, channels
    given = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    out = attend(given.movedim(0, 2), packed)
    last = attend_last(given[0][:, packed.last], given[1:].movedim(0, 2), packed)
    weights = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    (grad,) = torch.autograd.grad((out * weights).sum() + last.sum(), given)
    wanted, done = torch.zeros_like(grad), torch.zeros(ids.shape[1], dtype=torch.bool)
    for b in range(2):
        numbers = rows_of(torch.arange(ids.shape[1])[None], prompts, True)
        for c, index in enumerate(numbers):
            each = given[:, b : b + 1, index].transpose(2, 3)  # (3, 1, heads, l, channels)
            alone = F.scaled_dot_product_attention(*each, is_causal=True).transpose(1, 2).flatten(2)
            assert (alone[0] - out[b, index]).abs().max() < 1e-12
            assert (alone[0, -1] - last[b, packed.order[c]]).abs().max() < 1e-12
            new = index if c == 0 else index[packed.shared :]  # shared rows are weighted once
            done[new] = True
            loss = (alone[0, len(index) - len(new) :] * weights[b, new]).sum() + alone[0, -1].sum()
            wanted += torch.autograd.grad(loss, given)[0]
    assert done.all() and (grad - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("few", [0, packing.FEW])
@pytest.mark.parametrize("whole", [True, False])
def test_a_block(whole: bool, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows, and those that are pooled."""
    monkeypatch.setattr(packing, "FEW", few)
    _, backbone = small_pair()
    tower, block = backbone.clip.text.double(), backbone.clip.text.block(1)
    ids = backbone.tokenize(["a photo of a cat.", "a photo of a red panda.", "a photo of an owl in the snow."])
    x = tower.enter(tower.rows(ids))
    plain = block(x, block.ln_1(x))
    sequence, packed = pack(ids, cut=not whole)
    x = tower.enter(tower.rows(sequence), packed)
    found = block(x, block.ln_1(x), packed)
    pooled = block.pooled(x, block.ln_1(x), packed)
    assert (pooled - pooled_rows(found, packed)).abs().max() < 1e-12
    ends = plain[torch.arange(3), ids.argmax(dim=-1)]
    assert (pooled[0, packed.order] - ends).abs().max() < 1e-12
