"""What the README says is true: its Python runs, its commands are CI's, its tree names every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = re.search(r"```python\n(.+?)```", README, re.DOTALL)
    assert match is not None
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (80, 60), "orange").save(name)
    exec(compile(match[1], "README.md", "exec"), {})
    assert "accuracy" in capsys.readouterr().out
    assert (tmp_path / "runs" / "animals" / "adapter_config.json").is_file()


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"^python3 -m venv .*pytest$", README, re.MULTILINE)
    assert command is not None
    assert command[0] in (ROOT / ".ci" / "run").read_text()


def test_the_tree_names_every_file() -> None:
    source = ROOT / "src" / "rmadapter"
    for file in source.rglob("*.py"):
        if file.name != "__init__.py" and "parts" not in file.parts:
            assert re.search(rf"(?<![a-z_]){re.escape(file.name)}", README), file.relative_to(source)
    for name in re.findall(r"\b([a-z_]+\.py)\b", README):
        assert list(source.rglob(name)), name


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
