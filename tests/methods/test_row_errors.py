"""The reconstruction error that keeps no difference, beside the plain one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmadapter.methods.parts import reconstruction
from rmadapter.methods.parts.reconstruction import Objective, row_errors

PLAIN = {
    "l2": lambda r, t: (r - t).square().mean(dim=-1),
    "l1": lambda r, t: (r - t).abs().mean(dim=-1),
    "cosine": lambda r, t: 1 - F.cosine_similarity(r, t, dim=-1),
}


@pytest.fixture(autouse=True)
def every_target_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "LARGE", 0)


def case(noise: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    """h (2, 7, 5), a layer to 24 channels, a target whose squared distance is ``noise`` of it, weights of rows."""
    generator = torch.Generator().manual_seed(0)
    last = nn.Linear(5, 24).double()
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        h = torch.randn(2, 7, 5, generator=generator).to(dtype)
        rebuilt = last.to(dtype).double()(h.double())
        far = torch.randn(rebuilt.shape, generator=generator, dtype=torch.float64)
        target = rebuilt + noise**0.5 * far * rebuilt.norm() / far.norm()
    return h.requires_grad_(), last.to(dtype), target.to(dtype), torch.rand(2, 7, generator=generator).to(dtype)


def found(errors: Tensor, weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Errors, and the gradients of their weighted sum."""
    return [errors.detach(), *torch.autograd.grad((errors * weights).sum(), leaves)]


@pytest.mark.parametrize("rows", [1, 4, 14, 256])
@pytest.mark.parametrize("moving", [False, True], ids=["target", "target with a gradient"])
@pytest.mark.parametrize("objective", PLAIN)
def test_values_and_gradients(objective: Objective, moving: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "ROWS", rows)
    h, last, target, weights = case()
    leaves = [h, last.weight, last.bias] + [target.requires_grad_()] * moving
    ours = found(row_errors(h, last, target, objective), weights, leaves)
    plain = found(PLAIN[objective](F.linear(h, last.weight, last.bias), target), weights, leaves)
    for one, other in zip(ours, plain, strict=True):
        assert (one - other).abs().max() < 1e-12 * other.abs().max()


@pytest.mark.parametrize("noise", [1.0, 1e-4])
def test_a_good_reconstruction_is_as_exact(noise: float) -> None:
    """In float32, where an error that is multiplied out would be off by 1e-3 at 1e-4 of the target."""
    h, last, target, weights = case(noise, torch.float32)
    ours = found(row_errors(h, last, target, "l2"), weights, [h, last.weight, last.bias])
    exact = [x.detach().double().requires_grad_() for x in (h, last.weight, last.bias)]
    plain = found(PLAIN["l2"](F.linear(*exact), target.double()), weights.double(), exact)
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 1e-6 / noise**0.5 * other.abs().max()


def test_it_keeps_nothing_as_large_as_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(objective: Objective) -> int:
        h, last, target, _ = case()
        seen: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (seen.append(x), x)[1], lambda x: x):
            row_errors(h, last, target, objective)
        return max(x.numel() for x in seen if x.untyped_storage().data_ptr() != target.untyped_storage().data_ptr())

    assert kept("l2") < 24 * 14 <= kept("l1")
    monkeypatch.setattr(reconstruction, "LARGE", 24 * 14 + 1)  # of a small target it may
    assert kept("l2") == kept("l1")
