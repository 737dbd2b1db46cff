"""The benchmarks' own parts; nothing is timed here."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from rmadapter.method import prompts
from rmadapter.methods.mma import MMA
from small import small_pair

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in {path.stem for path in FOLDER.glob("*.py")}:
        sys.modules.pop(name, None)


def test_the_reference_computes_the_same(benchmark: object) -> None:
    """Logits, and what every parameter becomes in two steps."""
    step, reference = benchmark("step"), benchmark("reference_mma")
    model, backbone = small_pair(image_depth=6, text_depth=6)
    method = MMA(backbone)
    method.start(step.names(7), step.TEMPLATE)
    usual = reference.ReferenceMMA(model, prompts(method.classes, step.TEMPLATE), backbone.tokenizer, blocks=4)
    assert usual.first == method.touches("image").start
    with torch.no_grad():
        for name, parameter in usual.ours().items():
            parameter.copy_(method.state_dict()[name])
    given = step.batch(backbone, 3, 7)
    sides = step.ours(method, *given), step.theirs(usual, *given)
    assert max(step.compare(*sides).values()) < 1e-5
    assert max(step.compare(*sides).values()) < 1e-4
    with torch.no_grad():
        usual.shared[0].bias += 0.1
    with pytest.raises(AssertionError, match="do not compute the same"):
        step.compare(*sides)


def test_times_are_taken_in_turn(benchmark: object, tmp_path: Path) -> None:
    common, ran = benchmark("common"), []
    times = common.interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert "".join(ran) == "abbaabba" and {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}
    times = {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 1.0]}
    assert common.ratio(times, "a", "b") == {"median": 3.0, "least": 2.0, "most": 4.0}
    common.write("some", SimpleNamespace(out=tmp_path, repeats=3), {"seconds": common.medians(times)})
    written = json.loads((tmp_path / "some.json").read_text())
    assert written["results"]["seconds"] == {"a": 4.0, "b": 1.0} and written["versions"]["torch"]


def test_a_step_is_measured_beyond_what_was_there(benchmark: object) -> None:
    common = benchmark("common")
    held = torch.ones(50 << 18)  # 50 MiB
    found = common.memory(lambda: torch.ones(20 << 18).sum())
    assert 15 < found["step_MiB"] < 45 and found["process_MiB"] > 70
    assert held.sum() > 0
