"""The golden numbers hold, and the check can fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from golden import run
from rmadapter.methods import mma, rmadapter
from rmadapter.methods.clip_adapter import Adapter as CLIPAdapterLayer
from rmadapter.methods.mma import MMA
from rmadapter.methods.parts import bottleneck


def test_all_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"passed {len(run.ENTRIES)} of {len(run.ENTRIES)}"


@pytest.mark.parametrize("name", ["mma", "rmadapter"])
def test_dropping_the_gradient_scale_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bottleneck, "scale_gradient", lambda x, scale: x)
    errors = run.compare(run.DATA, name)
    assert errors["logits"] < run.LIMIT and errors["loss"] < run.LIMIT
    assert errors["gradients"] > 0.1


@pytest.mark.parametrize("module", [mma, rmadapter])
def test_another_activation_fails(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(module, "activate", lambda x, activation: torch.nn.functional.gelu(x))
    assert run.compare(run.DATA, module.__name__.rpartition(".")[2])["logits"] > run.LIMIT


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("clip_adapter", {"image_ratio": 0.8}),
        ("multimodal_adapter", {"ratio": 0.8}),
        ("multimodal_adapter", {"mask": "boolean"}),
        ("multimodal_adapter", {"adapts": "image"}),
        ("multimodal_adapter", {"heads": 8}),
    ],
    ids=str,
)
def test_another_setting_fails(monkeypatch: pytest.MonkeyPatch, name: str, wrong: dict[str, Any]) -> None:
    entry = run.ENTRIES[name]
    changed = dataclasses.replace(entry, settings=lambda config: {**entry.settings(config), **wrong})
    monkeypatch.setitem(run.ENTRIES, name, changed)
    errors = run.compare(run.DATA, name)
    assert errors["logits"] > run.LIMIT and errors["gradients"] > run.LIMIT


def test_forgetting_the_last_relu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLIPAdapterLayer, "forward", lambda self, x: self.up(torch.relu(self.down(x))))
    assert run.compare(run.DATA, "clip_adapter")["logits"] > run.LIMIT


def test_keeping_the_text_tower_from_the_middle_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = MMA.beside

    def apart(self: MMA, tower: str, i: int, u: torch.Tensor) -> torch.Tensor:
        self.middle.requires_grad_(tower == "image")
        try:
            return beside(self, tower, i, u)
        finally:
            self.middle.requires_grad_(True)

    monkeypatch.setattr(MMA, "beside", apart)
    errors = run.compare(run.DATA, "mma")
    assert errors["logits"] < run.LIMIT and errors["gradients"] > 0.1


def test_an_empty_folder_does_not_pass(tmp_path: Path) -> None:
    assert run.main([str(tmp_path)]) == 1
