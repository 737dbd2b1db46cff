"""What the frame leaves out, shares and does not keep, and that nothing else changes by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rmadapter import frame
from rmadapter.backbones import Backbone
from rmadapter.backbones.clip import Block, TowerName
from rmadapter.method import Method, Output, Teacher
from rmadapter.methods import method_class
from rmadapter.methods.mma import MMA
from rmadapter.methods.rmadapter import RMAdapter
from small import small_pair

CLASSES = ("cat", "red panda", "dog", "owl", "a toad in the hole")


@pytest.fixture(scope="module")
def double() -> Backbone:
    _, backbone = small_pair(image_depth=6, text_depth=5)
    backbone.clip.double()
    return backbone


def step(method: Method, classes: tuple[str, ...] = CLASSES, images: int = 3) -> tuple[Output, dict[str, Tensor]]:
    """A forward pass in training."""
    method.train().zero_grad()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, 32, 32, generator=generator).to(method.backbone.clip.logit_scale.dtype)
    image, text = method.begin("image", pixels), method.begin_text(classes)
    teacher = None
    if method.needs_teacher:
        teacher = Teacher(method.frozen("image", image), method.teacher_text(classes, text))
    output = method(image, text)
    return output, method.terms(output, torch.arange(images) % len(classes), teacher)


def values(method: Method) -> dict[str, Tensor]:
    """Every term, and every gradient of their sum."""
    _, terms = step(method)
    torch.stack(list(terms.values())).sum().backward()
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in method.named_parameters()}
    return {name: value.detach() for name, value in terms.items()} | grads


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).abs().max() < 1e-9 * max(1.0, float(value.abs().max())), name


def kept(method: Method, classes: tuple[str, ...] = CLASSES, images: int = 3) -> int:
    """Bytes that a forward pass keeps for the backward pass, beside weights."""
    weights = {p.untyped_storage().data_ptr() for p in [*method.backbone.clip.parameters(), *method.parameters()]}
    seen: dict[int, Tensor] = {}

    def note(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            seen[x.untyped_storage().data_ptr()] = x  # held, so that no address comes twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        step(method, classes, images)
    return sum(x.untyped_storage().nbytes() for x in seen.values())


@pytest.mark.parametrize("name", ["mma", "rmadapter", "coop", "cocoop", "maple"])
@pytest.mark.parametrize("memory", [1, 100_000])
def test_text_in_parts_changes_nothing(
    name: str, memory: int, double: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class at a time, or a few: the same terms (those of local losses too) and gradients."""
    method = method_class(name)(double).double()
    whole = values(method)
    parts: list[int] = []
    finish = frame.finish

    def spy(tower: Any, rows: frame.Rows, *rest: Any) -> Any:
        if rows.packed is not None:
            parts.append(len(rows.packed))
        return finish(tower, rows, *rest)

    monkeypatch.setattr(frame, "finish", spy)
    monkeypatch.setattr(frame, "MEMORY", memory)
    same(whole, values(method))
    assert len(parts) > 1 and max(parts) < len(CLASSES) and (memory == 1) == (max(parts) == 1)


@pytest.mark.parametrize("name", ["rmadapter", "clip_adapter"])
def test_pooled_rows_in_parts_change_nothing(name: str, double: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen ends with the last block's pooled rows: behind it, or before it alone is added to."""
    method = method_class(name)(double, **({"text_blocks": (5, 5)} if name == "rmadapter" else {})).double()
    whole = values(method)
    monkeypatch.setattr(frame, "MEMORY", 1)
    same(whole, values(method))


def test_parts_keep_less(double: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    method = RMAdapter(double).double()
    whole = kept(method, images=1)
    monkeypatch.setattr(frame, "MEMORY", 1)
    assert kept(method, images=1) < 0.8 * whole


@pytest.mark.parametrize("changes", [{}, {"objective": "l1"}, {"shared_down": False, "fused": True}], ids=str)
def test_a_gradient_that_is_taken_at_once_is_the_same(double: Backbone, changes: dict[str, Any]) -> None:
    method = RMAdapter(double, **changes).double()
    assert method.local_detached
    at_once = values(method)
    method.local_detached = False
    same(at_once, values(method))
    assert any(name.endswith("decoder.1.weight") and value.abs().max() > 0 for name, value in at_once.items())
    assert not RMAdapter(double, detach=False).local_detached


def test_reconstruction_keeps_nothing_for_the_backward_pass(double: Backbone) -> None:
    off = {"reconstruction_image": 0, "reconstruction_text": 0}
    with_it, without = RMAdapter(double).double(), RMAdapter(double, **off).double()
    assert kept(with_it) < 1.01 * kept(without)
    with_it.local_detached = False
    assert kept(with_it) > 1.05 * kept(without)


def test_a_class_keeps_its_own_rows_alone(double: Backbone) -> None:
    """One more class of one word adds its three rows, whatever the length of the template and of other names."""
    method = MMA(double).double()
    text, short = double.shape.text, ("cat", "dog", "owl", "a toad in the hole and a dog on the moon")
    added = [
        kept(method, (*short, "hen", "cow"), images=1) - kept(method, (*short, "hen"), images=1)
        for method.template in ("{}.", "a photo of a small and very old {}.")
    ]
    rows = 3 * 8 * text.depth * (frame.KEPT * text.width + text.mlp)
    assert added[0] < rows
    assert added[1] - added[0] < 0.5 * rows  # copies of what attention reads of the shared rows


def calls(
    tower: TowerName, backbone: Backbone, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Which blocks ran, in order; the last one may run for the pooled rows alone."""
    blocks, found = list(backbone.tower(tower).blocks), list[int]()
    with monkeypatch.context() as patch:
        for way in ("forward", "pooled"):
            original = getattr(Block, way)

            def spy(block: Block, *rest: Any, original: Any = original) -> Tensor:
                if any(block is each for each in blocks):
                    found.append(next(i for i, each in enumerate(blocks) if each is block))
                return original(block, *rest)

            patch.setattr(Block, way, spy)
        run()
    return found


def test_frozen_blocks_run_once(double: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first adapted block is frozen too, where the method only adds to what comes out; the teacher shares it."""
    method = RMAdapter(double, image_blocks=(3, 6)).double()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    rows = []
    assert calls("image", double, lambda: rows.append(method.begin("image", pixels)), monkeypatch) == [0, 1, 2]
    text = method.begin_text(CLASSES)
    assert calls("image", double, lambda: method(rows[0], text), monkeypatch) == [3, 4, 5]
    assert calls("image", double, lambda: method.frozen("image", rows[0]), monkeypatch) == [3, 4, 5]
    assert calls("text", double, lambda: method(rows[0], text), monkeypatch) == [3, 4]  # adapted from the third of five
    alone = RMAdapter(double, image_blocks=(6, 6), text_blocks=(5, 5)).double()
    rows, text = [alone.begin("image", pixels)], alone.begin_text(CLASSES)
    for tower in ("image", "text"):
        assert calls(tower, double, lambda: alone(rows[0], text), monkeypatch) == []
    values(alone)


def test_a_method_that_changes_what_goes_in_runs_its_first_block(double: Backbone) -> None:
    class Before(MMA):
        name = "mma"

        def before(self, tower: TowerName, i: int, x: Tensor) -> Tensor:
            return x * (1.0 + 0.1 * i)

    one, other = MMA(double).double().eval(), Before(double).double().eval()
    other.load_state_dict(one.state_dict())
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert one.begin("image", pixels).past is not None and other.begin("image", pixels).past is None
    with torch.no_grad():
        logits = [m(m.begin("image", pixels), m.begin_text(CLASSES)).features.logits for m in (one, other)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["rmadapter", "mma", "maple", "cocoop"])
def test_half_precision_is_near_and_finite(name: str) -> None:
    """Losses and norms are summed in float32; what the local losses are of does not overflow."""
    _, backbone = small_pair(image_depth=6, text_depth=5)
    method = method_class(name)(backbone)
    method.start(CLASSES, backbone.template)
    _, plain = step(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, terms = step(method)
        torch.stack(list(terms.values())).sum().backward()
    assert output.features.logits.dtype == torch.float32
    for term, value in terms.items():
        near = pytest.approx(float(plain[term].detach()), rel=0.1, abs=0.05)
        assert value.dtype == torch.float32 and float(value.detach()) == near, term
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_a_gradient_that_is_taken_at_once_is_not_half_precise() -> None:
    """The local loss is computed in float32 under autocast, and so is its gradient; in fp16 it would underflow."""
    _, backbone = small_pair()
    method, rows = RMAdapter(backbone, image_blocks=(3, 3), consistency_image=0, consistency_text=0), []
    for at_once in (True, False):
        method.local_detached = at_once
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, terms = step(method)
        terms["reconstruction_image"].backward()
        rows.append([parameter.grad for parameter in method.branch("image", 2).parameters()])
    for one, other in zip(*rows, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).abs().max() < 1e-5 * other.abs().max()
