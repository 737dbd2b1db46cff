"""Atomic writing and run folders; contact sheets."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rmadapter import files
from rmadapter.errors import UserError
from rmadapter.files import is_file, new_folder, write_atomic, write_json, write_text
from rmadapter.report import Shown, contact_sheet


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*x\.json\n.*No space left"):
        write_atomic(file, fail)
    assert file.read_text() == '{\n "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_file_that_somebody_reads_is_replaced_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, refused = Path.replace, [PermissionError(13, "in use"), PermissionError(13, "in use")]

    def in_use(self: Path, target: Path) -> Path:
        if refused:
            raise refused.pop()
        return replace(self, target)

    monkeypatch.setattr("rmadapter.files.PAUSE", 0.0)
    monkeypatch.setattr(Path, "replace", in_use)
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    refused += [PermissionError(13, "in use")] * 3
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "x", "newer")
    assert (tmp_path / "x").read_text() == "new"


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "x", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "none" / "x", "text")


def test_new_folders(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "a" / "b").is_dir()
    assert new_folder(tmp_path / "a" / "b").is_dir()  # empty: still new
    (tmp_path / "a" / "b" / "file").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        new_folder(tmp_path / "a" / "b")
    assert new_folder(tmp_path / "a" / "b", resume=True).is_dir()
    with pytest.raises(UserError, match="is a file"):
        new_folder(tmp_path / "a" / "b" / "file")
    own, kept = (tmp_path / "a" / name for name in (".run.json.x7_ab2cd.part", ".holiday.mov.part"))
    for file in (own, kept):
        file.write_text("")
    with pytest.raises(UserError, match="is not empty"):
        new_folder(tmp_path / "a")
    assert own.exists() and kept.exists()  # what is refused is not touched
    new_folder(tmp_path / "a", resume=True)
    assert not own.exists() and kept.exists()  # nor is another program's
    with pytest.raises(UserError, match="cannot use"):
        new_folder(tmp_path / "a" / "b" / "file" / "c")


def test_a_file_that_cannot_be_there(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    assert is_file(tmp_path / "here") and not is_file(tmp_path)
    assert not is_file(tmp_path / ("long" * 100))  # where Path raises


def test_contact_sheets_cut_long_names_and_mark_mistakes(tmp_path: Path) -> None:
    image = Image.new("RGB", (10, 20), "blue")
    tiles = [Shown(image, "a name that is far too long for a tile", "owl"), Shown(image, "owl", "owl")]
    contact_sheet(tiles, "title", tmp_path / "sheet.png", columns=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = {color for _, color in sheet.convert("RGB").getcolors(100_000) or []}
        assert (192, 38, 45) in colors and (26, 127, 55) in colors and (0, 0, 255) in colors
        assert sheet.width < 300


def test_tensors_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(3)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*x\.safetensors\n  given:   No space left"):
        files.write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
