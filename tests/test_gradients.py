"""How a batch is cut into parts; that the gradient stays the same is tested over every method (``contract``)."""

from __future__ import annotations

from contextlib import nullcontext

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
    """Under bfloat16, eight parts are no farther from float32 than the whole batch is, but for a half."""
    method = MMA(pictoclip).train()
    method.start(("cat", "red panda", "dog"), "a {}.")
    pixels = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    labels, text = torch.arange(8) % 3, method.begin_text(method.classes)
    found = {}
    for kind, most, half in (("exact", 99, False), ("whole", 99, True), ("parts", 1, True)):
        context = (lambda: torch.autocast("cpu", torch.bfloat16)) if half else nullcontext
        with context():
            rows = method.begin("image", pixels)
        monkeypatch.setattr(gradients, "CPU", most * frame.kept(pictoclip.tower("image"), rows))
        method.zero_grad()
        gradients.gradients(method, rows, labels, text, None, context, Tensor.backward)
        found[kind] = torch.cat([p.grad.flatten() for p in method.text.parameters() if p.grad is not None])
    error = {kind: float((found[kind] - found["exact"]).norm()) for kind in ("whole", "parts")}
    assert 0 < error["parts"] < 1.5 * error["whole"]
