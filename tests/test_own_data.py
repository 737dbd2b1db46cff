"""The walk-through in docs/own-data.md, run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "own-data.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every shell block was run, in order and in one shell, and what they printed."""
    folder = tmp_path_factory.mktemp("walk")
    blocks = re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL)
    assert len(blocks) > 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def test_the_commands_leave_what_the_page_says(walked: tuple[Path, str]) -> None:
    folder, printed = walked
    assert "broken.jpg" in printed
    for name in ("mistakes.png", "reliability.png"):
        assert list((folder / "runs" / "plants" / "evaluation").rglob(name))
    rows = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    pictures = len(list((folder / "moved").glob("c*/*.png")))
    assert rows[0].startswith("image,label,error,class_1,probability_1") and len(rows) == 1 + pictures > 1
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(list((folder / "moved" / "rose").iterdir()))


def test_the_python_example_runs_after_them(
    walked: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.search(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert example is not None
    monkeypatch.chdir(walked[0])
    exec(compile(example[1], "own-data.md", "exec"), {})
    assert capsys.readouterr().out.count("rose") > 5
