"""TransMiter's net and its names; what it learns from a teacher is tested in test_transfer.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rmadapter as ra
from rmadapter.backbones import Backbone, outline
from rmadapter.data import Task, words
from rmadapter.errors import DataError, SettingError
from rmadapter.methods.parts.logit_net import LogitNet
from rmadapter.methods.transmiter import TransMiter
from rmadapter.transfer import added_flops


def net(backbone: Backbone, classes: tuple[str, ...], **settings: Any) -> TransMiter:
    method = TransMiter(backbone, **{"dimension": 16, **settings})
    method.start(classes, backbone.template)
    return method


def test_it_begins_as_zero_shot(pictoclip: Backbone, few: Task) -> None:
    method = net(pictoclip, few.classes)
    pixels = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours, plain = (each.predictor(few.classes).logits(pixels) for each in (method, ra.ZeroShot(pictoclip)))
    assert (ours - plain).abs().max() < 1e-4


def test_a_second_start_draws_from_all_names_again(pictoclip: Backbone, few: Task) -> None:
    method = net(pictoclip, few.classes, dimension=30)
    for classes in (few.classes[:3], few.classes):
        method.start(classes, pictoclip.template)
        assert method.settings.auxiliary == net(pictoclip, classes, dimension=30).settings.auxiliary


def test_the_matrix_stays_orthogonal_while_it_learns(pictoclip: Backbone, few: Task) -> None:
    method = net(pictoclip, few.classes)
    before = method.net.matrix().detach().clone()
    ra.fit(method, few.shots(2, seed=1), show_progress=False, epochs=20)
    after = method.net.matrix()
    assert (after - before).abs().max() > 1e-3
    assert (after @ after.T - torch.eye(16)).abs().max() < 1e-5
    upper = method.net.skew.triu()
    assert upper.abs().max() == 0  # it has no effect, so no gradient


def exponentials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the matrices whose exponential was taken."""
    taken, exponential = [], torch.linalg.matrix_exp

    def spy(matrix: Tensor) -> Tensor:
        taken.append(len(matrix))
        return exponential(matrix)

    monkeypatch.setattr(torch.linalg, "matrix_exp", spy)
    return taken


def test_a_predictor_computes_the_matrix_once(pictoclip: Backbone, few: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = net(pictoclip, few.classes).predictor(few.classes)
    taken = exponentials(monkeypatch)
    pixels = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    for _ in range(3):
        predictor.logits(pixels)
    assert taken == [16]


@pytest.mark.parametrize("what", ["skew", "base"])
def test_a_kept_matrix_is_not_stale(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logit_net = LogitNet(8, 2).eval()
    taken, tensor = exponentials(monkeypatch), getattr(logit_net, what)
    with torch.no_grad():
        first = logit_net.matrix()
        assert logit_net.matrix() is first and len(taken) == 1
        tensor.copy_(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
        assert (logit_net.matrix() - first).abs().max() > 0.01
        logit_net.load_state_dict(LogitNet(8, 2).state_dict())
        fresh = LogitNet(8, 2)
        fresh.load_state_dict(logit_net.state_dict())
        assert torch.equal(logit_net.matrix(), fresh.matrix())


def test_names_are_drawn_by_the_seed_and_are_no_classes(pictoclip: Backbone) -> None:
    classes = ("cat", "Red_Apple", "owl")
    first, again, other = (net(pictoclip, classes, seed=seed).settings.auxiliary for seed in (1, 1, 2))
    assert first == again != other and len(first) == 13
    every = net(pictoclip, classes, dimension=len(words.names("cldr"))).settings.auxiliary
    assert not {"cat", "red apple", "owl"} & set(every) and len(set(every)) == len(every)
    assert net(pictoclip, classes, dimension=None).settings.auxiliary == ()


def test_the_shipped_list_says_where_it_is_from() -> None:
    names = words.names("cldr")
    head = (words.FOLDER / "cldr.txt").read_text(encoding="utf-8").split(names[0])[0]
    assert "Unicode-3.0" in head and "MIT" in head and len(names) > 1100  # room for 1,024 logits and ten classes of it
    for licence in ("cldr-Unicode-3.0.txt", "emojibase-data-MIT.txt"):
        assert licence in head and (words.FOLDER.parent / "pictograms" / "licenses" / licence).is_file()


def test_an_adapter_holds_its_names_and_needs_no_file(pictoclip: Backbone, few: Task, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("# mine\n" + "\n".join(f"thing {i}" for i in range(20)) + "\nThing_3\n" + few.classes[0] + "\n")
    method = net(pictoclip, few.classes, auxiliary=str(file))
    drawn = method.settings.auxiliary
    assert len(set(drawn)) == 10 and all(name.lower().startswith("thing") for name in drawn)
    ra.fit(method, few.shots(2, seed=1), tmp_path / "run", show_progress=False, epochs=1)
    file.unlink()
    assert json.loads((tmp_path / "run" / "adapter_config.json").read_text())["settings"]["auxiliary"] == list(drawn)
    loaded = ra.load(tmp_path / "run")
    assert isinstance(loaded, TransMiter) and loaded.settings.auxiliary == drawn


def test_what_it_refuses(pictoclip: Backbone, few: Task, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"6 classes do not fit into 4 logits\n.*--method.dimension of 6"):
        net(pictoclip, few.classes, dimension=4)
    with pytest.raises(DataError, match=r"too few auxiliary names\n.*given: +2 that are no class\n.*allowed: 10"):
        net(pictoclip, few.classes, auxiliary=("a", "b", few.classes[1].upper()))
    with pytest.raises(DataError, match=r"names.txt is not a readable list of names"):
        net(pictoclip, few.classes, auxiliary=str(tmp_path / "names.txt"))
    (tmp_path / "names.txt").write_text("# nothing\n\n")
    with pytest.raises(DataError, match="holds no names"):
        net(pictoclip, few.classes, auxiliary=str(tmp_path / "names.txt"))
    for key, value in {"dimension": 1, "expansion": 0, "ridge": 0, "ridge_share": -1, "noise": -0.1}.items():
        with pytest.raises(SettingError, match=f"{key} is not valid"):
            TransMiter(pictoclip, **{key: value})


def test_the_published_sizes() -> None:
    """ViT-L/14 with 1,024 logits; its weights are not filled, since only what trains is looked at."""
    backbone = outline("ViT-L-14")
    method = TransMiter(backbone)
    method.start(tuple(f"class {i}" for i in range(100)), backbone.template)
    assert method.settings.dimension == 1024 and len(method.settings.auxiliary) == 924
    assert method.trained() == 9_444_352
    shapes = {name: tuple(value.shape) for name, value in method.net.named_parameters()}
    assert shapes == {
        "skew": (1024, 1024),
        "mlp.0.weight": (1024,),
        "mlp.0.bias": (1024,),
        "mlp.1.weight": (4096, 1024),
        "mlp.1.bias": (4096,),
        "mlp.3.weight": (1024, 4096),
        "mlp.3.bias": (1024,),
    }
    multiplications = 10 * 1024**2 + 924 * 768  # of the net, and of auxiliary names' logits
    assert added_flops(method) == 2 * multiplications
