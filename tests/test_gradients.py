"""How a batch is cut into parts; that the gradient stays the same is tested over every method (``contract``)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rmadapter as ra
from rmadapter import frame, gradients
from rmadapter.backbones import Backbone
from rmadapter.methods.mma import MMA
from small import small_pair

_, SMALL = small_pair(image_depth=6, text_depth=6)


@given(images=st.integers(1, 40), most=st.integers(1, 45), rest=st.integers(0, 99))
def test_parts_are_the_batch_and_nearly_alike(images: int, most: int, rest: int) -> None:
    method = MMA(SMALL)
    method.start(("cat", "dog"), "a {}.")
    rows, text = method.begin("image", torch.zeros(images, 3, 32, 32)), method.begin_text(method.classes)
    one = frame.kept(SMALL.tower("image"), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "CPU", most * one + one * rest // 100)
        parts = list(gradients.parts(method, rows, text))
    covered = [i for part in parts for i in range(part.start, part.stop)]
    assert covered == list(range(images))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-images // most), "no more parts than are needed"


def test_images_that_are_compared_with_each_other_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "CPU", 1)
    found = {}
    for retained in ("direction", "outside_shots", "inside_text"):
        method = ra.RMAdapter(SMALL, retention=1.0, retained=retained)
        rows = method.begin("image", torch.zeros(4, 3, 32, 32))
        found[retained] = len(list(gradients.parts(method, rows, method.begin_text(["cat"]))))
    assert found == {"direction": 4, "outside_shots": 1, "inside_text": 4}


def test_half_precision_does_not_round_what_parts_add_up(pictoclip: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 256 parts that are all the same image; in bfloat16 their sum would stop growing before the last of them."""
    method = MMA(pictoclip).train()
    method.start(("cat", "red panda", "dog"), "a {}.")
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).expand(256, -1, -1, -1)
    labels, text = torch.zeros(256, dtype=torch.long), method.begin_text(method.classes)
    rows, found = method.begin("image", pixels), []
    for most in (256, 1):
        monkeypatch.setattr(gradients, "CPU", most * frame.kept(pictoclip.tower("image"), rows))
        method.zero_grad()
        half = torch.autocast("cpu", torch.bfloat16)
        gradients.gradients(method, rows, labels, text, None, lambda half=half: half, Tensor.backward)
        found.append(torch.cat([p.grad.flatten() for p in method.text.parameters() if p.grad is not None]))
    whole, parts = found
    assert whole.norm() > 0 and (parts - whole).norm() < 0.02 * whole.norm()
