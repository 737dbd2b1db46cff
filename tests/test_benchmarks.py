"""The benchmarks' own parts; nothing is timed here."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from rmadapter.method import prompts
from rmadapter.methods.mma import MMA
from small import small_pair

FOLDER = Path(__file__).parents[1] / "benchmarks"


Load = Callable[[str], ModuleType]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in {path.stem for path in FOLDER.glob("*.py")}:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attention", ["module", "sdpa"])
def test_the_reference_computes_the_same(benchmark: Load, attention: str) -> None:
    """Logits, and what every parameter becomes in two steps."""
    step, reference = benchmark("step"), benchmark("reference_mma")
    model, backbone = small_pair(image_depth=6, text_depth=6)
    method = MMA(backbone)
    method.start(step.names(7), step.TEMPLATE)
    texts = prompts(method.classes, step.TEMPLATE)
    usual = reference.ReferenceMMA(model, texts, backbone.tokenizer, 4, attention)
    assert usual.first == method.touches("image").start
    with torch.no_grad():
        for name, parameter in usual.ours().items():
            parameter.copy_(method.state_dict()[name])
    given = step.batch(backbone, 3, 7)
    one, other = step.ours(method, *given), step.theirs(usual, *given)

    def differ() -> float:
        with torch.no_grad():
            logits = one.logits(), other.logits()
        return float(max(step.compare(one.step(), other.step(), logits).values()))

    assert differ() < 1e-5
    assert differ() < 1e-4
    with torch.no_grad():
        usual.shared[0].bias += 0.1
    with pytest.raises(SystemExit, match="do not compute the same"):
        differ()


def test_a_whole_benchmark(benchmark: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of each script but the processes that memory is measured in, on a small model."""
    model, backbone = small_pair(image_depth=6, text_depth=6)
    for name in ("step", "parts", "rate", "whole_run", "predict"):
        module = benchmark(name)
        small = {"create": lambda _: model, "backbone_of": lambda *_: backbone, "fresh": lambda *_: {"step_MiB": 2.0}}
        for key, stand_in in small.items():
            monkeypatch.setattr(module, key, stand_in, raising=False)
        monkeypatch.setattr(sys, "argv", [name, "--short", "--out", str(tmp_path)])
        module.main()
    found = {path.stem: json.loads(path.read_text())["results"] for path in tmp_path.iterdir()}
    for at in found["step"].values():
        assert max(at["differences"]["reference"].values()) < 1e-4 and at["memory_ratio"]["sdpa"] == {"step_MiB": 1.0}
        assert at["seconds"].keys() == {"reference", "sdpa", "ours"}
    assert found["parts"]["over_adaptation"].keys() == {"frozen", "reconstruction", "consistency", "both"}
    assert 0 < found["rate"]["percent_of_peak"]["median"] < 150 and found["rate"]["operations_G"] > 0
    assert found["predict-pictoclip-s"]["images_per_second"]["decoding"] > 0
    assert found["whole_run"]["images_per_second"].keys() == {"usual", "ours", "again"}


def test_times_are_taken_in_turn(benchmark: Load, tmp_path: Path) -> None:
    common, ran = benchmark("common"), []
    times = common.interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert "".join(ran) == "abbaabba" and {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}
    times = {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 1.0]}
    assert common.ratio(times, "a", "b") == {"median": 3.0, "least": 2.0, "most": 4.0}
    common.write("some", SimpleNamespace(out=tmp_path, repeats=3), {"seconds": common.medians(times)})
    written = json.loads((tmp_path / "some.json").read_text())
    assert written["results"]["seconds"] == {"a": 4.0, "b": 1.0} and written["versions"]["torch"]


def test_memory_is_the_median_of_processes(benchmark: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    common, answers = benchmark("common"), iter([3.0, 9.0, 1.0])
    monkeypatch.setattr(common, "_fresh", lambda *_: {"step_MiB": next(answers)})
    assert common.fresh("some.py", {}, 3) == {"step_MiB": 3.0}


def test_a_step_is_measured_beyond_what_was_there(benchmark: Load) -> None:
    common = benchmark("common")
    held = torch.ones(50 << 18)  # 50 MiB
    found = common.memory(lambda: torch.ones(20 << 18).sum())
    assert 15 < found["step_MiB"] < 45 and found["process_MiB"] > 70
    assert held.sum() > 0
