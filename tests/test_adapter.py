"""Adapters on disk: what they hold, and what strict loading refuses by name."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import rmadapter as ra
from rmadapter import adapter
from rmadapter.backbones import Backbone
from rmadapter.data import Task
from rmadapter.errors import AdapterError, SettingError, TrainingError
from small import small_pair


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictoclip: Backbone, few: Task) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "few"
    ra.fit(ra.RMAdapter(pictoclip, rank=8), few.shots(4, seed=1), folder, show_progress=False, epochs=2)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes((trained / name).read_bytes())
    return folder


def edit(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_is_in_the_config(trained: Path, pictoclip: Backbone, few: Task) -> None:
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["method"] == "rmadapter" and config["settings"]["rank"] == 8
    assert config["settings"].keys() == ra.RMAdapter.Settings.model_fields.keys()
    assert config["backbone"]["sha256"] == pictoclip.sha256 and config["backbone"]["name"] == "pictoclip-s"
    assert config["backbone"]["preprocess"]["size"] == 48
    assert config["classes"] == list(few.classes) and config["template"] == "a pictogram of a {}."
    assert {"rmadapter", "torch", "torchvision", "python"} <= config["versions"].keys()


def test_only_what_trains_is_saved(trained: Path, pictoclip: Backbone) -> None:
    tensors = load_file(trained / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == ra.RMAdapter(pictoclip, rank=8).trained()
    assert (trained / "adapter_model.safetensors").stat().st_size < 5_000_000


def test_loading_gives_the_same_predictions(trained: Path, few: Task, pictoclip: Backbone) -> None:
    alone, given = ra.load(trained), ra.load(trained, backbone=pictoclip)
    for classes, split in ((few.classes, few.test), (few.classes[:3], few.test.only([0, 1, 2]))):
        scores = [ra.evaluate(method.predictor(classes), split) for method in (alone, given)]
        assert scores[0] == scores[1]
    assert alone.template == few.template and alone.classes == few.classes


def test_another_class_list(trained: Path, animals: Task) -> None:
    novel = animals.novel()
    assert ra.evaluate(ra.load(trained).predictor(novel.classes), novel.val).classes == len(novel.classes)


def test_another_backbone(trained: Path) -> None:
    _, other = small_pair()
    with pytest.raises(AdapterError, match="another backbone"):
        ra.load(trained, backbone=other)


def test_the_same_weights_that_compute_something_else(few: Task, tmp_path: Path) -> None:
    (_, quick), (_, plain) = small_pair(quick_gelu=True), small_pair(quick_gelu=False)
    assert quick.sha256 == plain.sha256
    method = ra.ZeroShot(quick)
    method.classes = few.classes
    ra.save(method, tmp_path)
    with pytest.raises(AdapterError, match="its shape differs"):
        ra.load(tmp_path, backbone=plain)
    quick.preprocess = dataclasses.replace(quick.preprocess, mean=(0.1, 0.1, 0.1))
    with pytest.raises(AdapterError, match="its preprocess differs"):
        ra.load(tmp_path, backbone=quick)


def test_weights_that_are_not_finite_are_not_saved(pictoclip: Backbone, tmp_path: Path) -> None:
    method = ra.RMAdapter(pictoclip)
    next(method.parameters()).data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"image\.3\.down\.weight is not finite"):
        ra.save(method, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_and_misshapen_tensors(copy: Path) -> None:
    file = copy / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "image.3.down.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(AdapterError, match=rf"{name}.*\n.*missing"):
        ra.load(copy)
    save_file({**tensors, "image.1.down.weight": torch.zeros(2)}, file)
    with pytest.raises(AdapterError, match=r"image\.1\.down\.weight.*\n.*\n.*no such tensor"):
        ra.load(copy)
    save_file({**tensors, name: torch.zeros(3, 3)}, file)
    with pytest.raises(AdapterError, match=r"\(3, 3\)"):
        ra.load(copy)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(AdapterError, match="missing or damaged"):
        ra.load(copy)
    file.unlink()
    with pytest.raises(AdapterError, match="missing or damaged"):
        ra.load(copy)


def test_edited_configs(copy: Path) -> None:
    edit(copy, method="zero_shot", settings={})
    with pytest.raises(AdapterError, match="does not fit method zero_shot"):
        ra.load(copy)
    edit(copy, method="rmadaptr")
    with pytest.raises(SettingError, match="did you mean 'rmadapter'"):
        ra.load(copy)
    edit(copy, method="rmadapter", settings={"rnk": 3})
    with pytest.raises(SettingError, match="did you mean 'rank'"):
        ra.load(copy)
    for changes, message in (
        ({"format": 9}, "format is not valid"),
        ({"format": 1, "settings": None}, "settings is not valid"),
        ({"settings": {}, "seed": "a"}, "seed is not valid"),
        ({"seed": 1, "backbone": {}}, "backbone is not valid"),
    ):
        edit(copy, **changes)
        with pytest.raises(AdapterError, match=message):
            ra.load(copy)
    (copy / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match="cannot be read"):
        ra.load(copy)
    (copy / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        ra.load(copy)


def test_random_weights_are_made_again_from_their_seed(tmp_path: Path, few: Task) -> None:
    method = ra.ZeroShot(ra.load_backbone("ViT-B-32", None, seed=5))
    method.classes = few.classes
    ra.save(method, tmp_path)
    assert ra.load(tmp_path).backbone.sha256 == method.backbone.sha256


def test_a_backbone_that_is_gone(copy: Path) -> None:
    config = json.loads((copy / "adapter_config.json").read_text())
    edit(copy, backbone={**config["backbone"], "name": "pictoclip-xl"})
    with pytest.raises(AdapterError, match="cannot be loaded"):
        ra.load(copy)


def test_evaluations_at_once_lose_no_record(copy: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: adapter.record(copy, str(i), {"accuracy": i}), range(40)))
    scores = adapter.read_config(copy).scores
    assert {key: entry["accuracy"] for key, entry in scores.items()} == {str(i): i for i in range(40)}
