"""A killed run goes on to the bytes it would have had, and a sweep to its scores. The scripts kill more often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("how", "times"), [("SIGKILL", 2), ("SIGTERM", 1)])
def test_a_killed_run_ends_in_the_same_bytes(how: str, times: int) -> None:
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, script, "--times", str(times), "--signal", how, "--seed", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout.endswith(f"same bytes: {times} of {times}\n"), (
        result.stdout + result.stderr
    )


def test_a_killed_sweep_ends_in_the_same_scores() -> None:
    script = Path(__file__).with_name("sweep.py")
    options = ["--times", "1", "--seed", "1", "--data", "pictograms/plants", "--seeds", "1,2", "--shots", "1"]
    command = [sys.executable, script, *options, "--train.epochs", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout.endswith("same scores: 1 of 1\n"), result.stdout + result.stderr
