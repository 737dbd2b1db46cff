"""What retention penalises, and that it costs nothing where it is not asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rmadapter import RMAdapter
from rmadapter.errors import SettingError
from rmadapter.method import Features, Teacher
from rmadapter.methods.parts import retention
from rmadapter.recipe import resolve
from rmadapter.store import run_id
from small import small_pair

ALL_OFF = {"reconstruction_image": 0, "reconstruction_text": 0, "consistency_image": 0, "consistency_text": 0}


def rows(count: int, seed: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


def test_rows_that_depend_on_each_other_span_what_they_span() -> None:
    base, x = rows(2, 0), rows(5, 1)
    within = retention.project(x, torch.stack([base[0], base[1], base[0] + base[1], base[0]]))
    assert torch.allclose(within, retention.project(x, base))
    assert torch.allclose(retention.project(within, base), within)
    assert ((x - within) @ base.T).abs().max() < 1e-12
    assert (x - within).norm() > 0.1
    assert torch.allclose(retention.project(x, rows(9, 2)), x)  # more rows than dimensions span everything


def test_a_projection_is_in_float32_in_mixed_precision() -> None:
    generator = torch.Generator().manual_seed(3)
    x, rows = (torch.randn(n, 12, generator=generator) for n in (4, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = retention.project(x, rows)
        assert (x @ rows.T).dtype == torch.bfloat16
    assert torch.equal(found, retention.project(x, rows)) and found.dtype == torch.float32


def test_what_lies_inside_and_outside_makes_the_whole() -> None:
    now, before = (rows(4, 3), rows(3, 4)), (rows(4, 5), rows(3, 6))
    features = Features(*now, logits=now[0] @ now[1].T)
    whole = retention.changed(features, Teacher(*before), "direction")
    cosines = sum((1 - F.cosine_similarity(a, b, dim=-1)).mean() for a, b in zip(now, before, strict=True))
    assert torch.allclose(whole, torch.as_tensor(cosines))
    shared = Teacher(before[0], before[0])  # one span for both
    four = Features(now[0], rows(4, 7), features.logits)
    whole, outside, inside = (
        retention.changed(four, shared, retained) for retained in ("direction", "outside_shots", "inside_text")
    )
    assert min(outside, inside) > 0.01 and torch.allclose(outside + inside, whole)
    for retained in ("direction", "outside_shots", "inside_text"):
        assert retention.changed(Features(*before, features.logits), Teacher(*before), retained) == 0


def test_off_costs_nothing_and_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("retention was computed")

    monkeypatch.setattr("rmadapter.methods.rmadapter.changed", explode)
    _, backbone = small_pair()
    assert not RMAdapter(backbone, **ALL_OFF).needs_teacher
    method = RMAdapter(backbone).train()
    image, text = method.begin("image", torch.zeros(2, 3, 32, 32)), method.begin_text(["cat", "dog"])
    output, teacher = method(image, text), Teacher(method.frozen("image", image), method.frozen("text", text))
    assert "retention" not in method.terms(output, torch.tensor([0, 1]), teacher)
    asked = RMAdapter(backbone, **ALL_OFF, retention=1.0)
    assert asked.needs_teacher and asked.trained() == RMAdapter(backbone, **ALL_OFF).trained()
    with pytest.raises(AssertionError, match="computed"):
        asked.terms(output, torch.tensor([0, 1]), teacher)


def test_a_run_without_retention_is_called_what_it_was_before_there_was_any() -> None:
    def name(**settings: object) -> str:
        return run_id(resolve(None, {"method": {"name": "rmadapter", **settings}}).plain(), "backbone", "split")

    plain = resolve(None, {}).plain()
    assert {"retention", "retained"} <= plain["method_settings"].keys()
    older = {key: value for key, value in plain["method_settings"].items() if key not in ("retention", "retained")}
    assert run_id({**plain, "method_settings": older}, "backbone", "split") == name()
    decisive = RMAdapter.Settings.parse({}, "method rmadapter").decisive()
    assert decisive.keys() == older.keys()
    assert len({name(), name(retention=1.0), name(retention=1.0, retained="inside_text")}) == 3


def test_an_unknown_part_is_named() -> None:
    _, backbone = small_pair()
    with pytest.raises(SettingError, match="retained is not valid"):
        RMAdapter(backbone, retained="everything")
