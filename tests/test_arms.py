"""Arms from an experiment's file: grids, labels, and what is not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmadapter import arms
from rmadapter.errors import SettingError

FILE = """
about = "two ways"
[[arms]]
label = "alone"
method = {name = "rmadapter", reconstruction_image = 0.0}
grid = {"train.lr" = [0.1, 0.2], "method.rank" = [4, 8]}
[[arms]]
method = {name = "coop"}
train = {lr = 0.3, workers = 2}
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "experiment.toml"
    file.write_text(text)
    return file


def test_a_grid_is_an_arm_a_combination(tmp_path: Path) -> None:
    found = arms.read(write(tmp_path, FILE))
    assert [arm.label for arm in found] == [
        "alone rank=4 lr=0.1",
        "alone rank=8 lr=0.1",
        "alone rank=4 lr=0.2",
        "alone rank=8 lr=0.2",
        "coop lr=0.3",
    ]
    assert found[1].changes == {
        "method": {"name": "rmadapter", "reconstruction_image": 0.0, "rank": 8},
        "train": {"lr": 0.1},
    }
    assert found[4].changes == {"method": {"name": "coop"}, "train": {"lr": 0.3, "workers": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "arms"),
        ("arms = 3", "list of tables"),
        ("[[arms]]\nlable = 'x'", "unknown setting 'lable'"),
        ("[[arms]]\ngrid = {lr = [1]}", "no key 'lr'"),
        ("[[arms]]\ngrid = {'method.name' = ['coop', 'mma']}", "no key 'method.name'"),
        ("[[arms]]\ngrid = {'train.lr' = []}\n[[arms]]\nmethod = {name = 'mma'}", "at least 1 item"),
        ("[[arms]]\nmethod = {name = 'mma', rnak = 4}", r"e.*\.toml: .* unknown setting 'rnak'"),
        ("[[arms]]\ntrain = {lr = -1}", r"e.*\.toml: .*lr is not valid"),
        ("[[arms]]\n[[arms]]", "two arms are called 'rmadapter'"),
        ("[[arms", "not a TOML file"),
    ],
)
def test_what_is_not_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        arms.read(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="there is no experiment"):
        arms.read(tmp_path / "none.toml")
