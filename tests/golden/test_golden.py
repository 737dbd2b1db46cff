"""The golden numbers hold, and the check can fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from golden import run
from rmadapter import transfer
from rmadapter.backbones.clip import ImageTower
from rmadapter.method import Method, Teacher
from rmadapter.methods import cocoop, kgcoop, mma, promptsrc, rmadapter
from rmadapter.methods.mma import MMA
from rmadapter.methods.parts import blend, bottleneck, logit_net, prompts, templates


def test_all_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"passed {len(run.ENTRIES)} of {len(run.ENTRIES)}"


def test_an_image_feature_without_the_last_norm_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageTower, "pool", lambda self, rows: rows @ self.projection)
    assert run.compare(run.DATA, "zeroshot")["logits"] > 0.01


@pytest.mark.parametrize("name", ["mma", "rmadapter"])
def test_dropping_the_gradient_scale_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bottleneck, "scale_gradient", lambda x, gradient, by=1.0: by * x)
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
    changed = dataclasses.replace(entry, settings=lambda golden: {**entry.settings(golden), **wrong})
    monkeypatch.setitem(run.ENTRIES, name, changed)
    errors = run.compare(run.DATA, name)
    assert errors["logits"] > run.LIMIT and errors["gradients"] > run.LIMIT


@pytest.mark.parametrize("name", ["clip_adapter", "coprompt"])
def test_forgetting_the_last_relu_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(blend.Adapter, "forward", lambda self, x: self.up(torch.relu(self.down(x))))
    assert run.compare(run.DATA, name)["logits"] > 0.001


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


def test_an_image_feature_with_its_norm_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cocoop, "F", SimpleNamespace(normalize=lambda x, dim: x))
    assert run.compare(run.DATA, "cocoop")["logits"] > 0.01


@pytest.mark.parametrize("name", ["coop", "cocoop", "kgcoop", "maple", "promptsrc", "coprompt"])
def test_a_context_one_word_too_late_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite = prompts.overwrite
    for module in (prompts, cocoop):
        monkeypatch.setattr(module, "overwrite", lambda x, rows, at: overwrite(x, rows, at + (at == 1)))
    assert run.compare(run.DATA, name)["logits"] > 0.01


def test_the_teachers_template_matters_to_the_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    average = templates.average
    monkeypatch.setattr(kgcoop, "average", lambda backbone, classes, given: average(backbone, classes, ["a toy {}."]))
    errors = run.compare(run.DATA, "kgcoop")
    assert errors["logits"] < run.LIMIT and min(errors["loss"], errors["gradients"]) > 0.001


@pytest.mark.parametrize("name", ["maple", "promptsrc", "coprompt"])
def test_shallow_image_rows_that_miss_the_first_norm_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(tower: ImageTower, rows: Tensor, packed: None) -> Tensor:
        patches = len(tower.positions)
        return torch.cat([tower.ln_pre(rows[:, :patches]), rows[:, patches:]], dim=1)

    monkeypatch.setattr(ImageTower, "enter", enter)
    assert run.compare(run.DATA, name)["logits"] > 0.01


@pytest.mark.parametrize("name", ["maple", "promptsrc", "coprompt"])
def test_deep_rows_that_are_not_replaced_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts.DeepPromptMethod, "before", lambda self, tower, i, x: x)
    with pytest.raises(AttributeError):  # they get no gradient
        run.compare(run.DATA, name)


def test_templates_normalised_before_the_average_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = templates.encode
    monkeypatch.setattr(templates, "encode", lambda *given: torch.nn.functional.normalize(encode(*given), dim=-1))
    errors = run.compare(run.DATA, "promptsrc")
    assert errors["logits"] < run.LIMIT and min(errors["teacher"], errors["terms"]) > run.LIMIT


def test_a_divergence_for_each_image_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def for_each_image(x: Tensor, y: Tensor, **_: object) -> Tensor:
        return torch.nn.functional.kl_div(x, y, reduction="none", log_target=True) * x.shape[1]

    monkeypatch.setattr(promptsrc, "F", SimpleNamespace(kl_div=for_each_image))
    assert run.compare(run.DATA, "promptsrc")["terms"] > 0.01


@pytest.mark.parametrize("what", ["sentence", "view"])
def test_another_sentence_or_view_fails(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = run._teacher

    def wrong(method: Method, golden: run.Golden, *rest: Any) -> Teacher:
        if what == "view":
            golden = run.Golden({k: v for k, v in golden.tensors.items() if k != "images_second_view"}, golden.about)
        found = teacher(method, golden, *rest)
        assert found is not None
        return found._replace(text=found.text.roll(1, dims=0)) if what == "sentence" else found

    monkeypatch.setattr(run, "_teacher", wrong)
    errors = run.compare(run.DATA, "coprompt")
    assert errors["logits"] < run.LIMIT < errors["loss"]


def test_a_biased_deviation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def biased(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, deviation = logits.mean(dim=-1, keepdim=True), logits.std(dim=-1, keepdim=True, correction=0)
        return (logits - mean) / deviation, mean, deviation

    for module in (logit_net, transfer):
        monkeypatch.setattr(module, "standardise", biased)
    errors = run.compare(run.DATA, "transmiter")
    assert min(errors[key] for key in ("logits", "loss", "gradients", "target")) > run.LIMIT


def test_a_matrix_turned_the_other_way_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    rotation = transfer.rotation
    monkeypatch.setattr(transfer, "rotation", lambda source, target, ridge: rotation(source, target, ridge).T)
    errors = run.compare(run.DATA, "transmiter")
    assert max(errors[key] for key in ("logits", "loss", "gradients")) < run.LIMIT
    assert min(errors["matrix"], errors["target"]) > 0.01


@pytest.mark.parametrize("wrong", [{"ridge": 50.0}, {"teacher_temperature": 1.0}], ids=str)
def test_another_setting_of_the_transfer_fails(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = run.ENTRIES["transmiter"]
    changed = dataclasses.replace(entry, settings=lambda golden: {**entry.settings(golden), **wrong})
    monkeypatch.setitem(run.ENTRIES, "transmiter", changed)
    errors = run.compare(run.DATA, "transmiter")
    assert errors["logits"] < run.LIMIT
    assert min(errors[key] for key in (("matrix",) if "ridge" in wrong else ("loss", "gradients"))) > 0.01


def test_an_empty_folder_does_not_pass(tmp_path: Path) -> None:
    assert run.main([str(tmp_path)]) == 1
