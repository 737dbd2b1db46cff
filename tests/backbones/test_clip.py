"""A block's pooled row beside the same row of all, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rmadapter.backbones.clip import Block, TowerShape

SIZES = {"one head": (24, 1, 7), "two": (48, 2, 17), "twelve": (96, 12, 5), "one row": (48, 3, 1)}


def block(width: int, heads: int, activation: str = "quick_gelu") -> Block:
    """A frozen block of random weights, whose biases are large and whose attention is far from even."""
    made = Block(TowerShape(width, 1, heads, 4 * width), causal=False, activation=activation).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        scale = 2.0 if name.startswith("qkv.weight") else 1.0
        spread = 1.0 if parameter.ndim == 1 else scale / parameter.shape[1] ** 0.5
        parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return made


def rows(width: int, length: int) -> Tensor:
    return torch.randn(3, length, width, generator=torch.Generator().manual_seed(1))


def run(made: Block, x: Tensor, pooled: bool) -> tuple[Tensor, Tensor]:
    """The first row after the block (b, w), and the gradient of its weighted sum at x."""
    x = x.detach().requires_grad_()
    out = made.pooled(x, made.ln_1(x))[:, 0] if pooled else made(x, made.ln_1(x))[:, 0]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out.detach(), torch.autograd.grad((out * weights).sum(), x)[0]


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@pytest.mark.parametrize(("width", "heads", "length"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_pooled_row_of_images(width: int, heads: int, length: int, activation: str) -> None:
    made, x = block(width, heads, activation), rows(width, length)
    for found, wanted in zip(run(made, x, True), run(made, x, False), strict=True):
        assert relative(found, wanted) < 1e-5
    made.double()
    for found, wanted in zip(run(made, x.double(), True), run(made, x.double(), False), strict=True):
        assert relative(found, wanted) < 1e-12


def test_in_half_precision_it_is_nearer() -> None:
    """To float32 than all rows are, since the scores, their softmax and the mean are not rounded."""
    made, x = block(48, 2), rows(48, 17)
    exact = run(made, x, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, whole = run(made, x, True), run(made, x, False)
        assert made.pooled(x.bfloat16(), x.bfloat16()).isfinite().all()
    for ours, plain, wanted in zip(pooled, whole, exact, strict=True):
        assert 0 < relative(ours, wanted) < 0.6 * relative(plain, wanted)


def test_it_keeps_neither_keys_nor_values() -> None:
    made, x = block(48, 2), rows(48, 17).requires_grad_()
    u, seen = made.ln_1(x), list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(t), t)[1], lambda t: t):
        made.pooled(x, u)
    weights = {parameter.untyped_storage().data_ptr() for parameter in [*made.parameters(), u]}
    own = {t.untyped_storage().data_ptr(): t for t in seen}
    assert sum(t.untyped_storage().nbytes() for at, t in own.items() if at not in weights) < u.nbytes
