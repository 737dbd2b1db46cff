"""The golden numbers hold, and the check can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden import run
from rmadapter.methods import rmadapter


def test_all_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"passed {len(run.ENTRIES)} of {len(run.ENTRIES)}"


def test_dropping_the_gradient_scale_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmadapter, "scale_gradient", lambda x, scale: x)
    errors = run.compare(run.DATA, "mma")
    assert errors["logits"] < run.LIMIT and errors["loss"] < run.LIMIT
    assert errors["gradients"] > 0.1


def test_another_activation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmadapter, "activate", lambda x, activation: torch.nn.functional.gelu(x))
    assert run.compare(run.DATA, "mma")["logits"] > run.LIMIT


def test_an_empty_folder_does_not_pass(tmp_path: Path) -> None:
    assert run.main([str(tmp_path)]) == 1
