"""Kills a running sweep at random moments and starts it again: are its scores those of one that was left alone?

    python tests/resume/sweep.py [--times 20] [--seed 0] [BENCH OPTION …]

Kills (SIGKILL) at a moment drawn uniformly from the time that the undisturbed sweep took, then gives the same command
again. Prints a line a sweep and a last line ``same scores: N of M``; exits with 1 unless all are the same.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from run import finish, rmadapter

QUICK = ("--data", "pictograms/plants,pictograms/food", "--seeds", "1,2,3", "--methods", "rmadapter")
SHORT = (*QUICK, "--shots", "2", "--train.epochs", "3")


def start(out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """A sweep of six runs."""
    return rmadapter("bench", "base-to-novel", "--out", str(out), *options)


def results(out: Path) -> dict[str, Any]:
    """Recipes and scores by id, without the seconds."""
    found = {}
    for file in (out / "results").glob("*.json"):
        content = json.loads(file.read_text())
        scores = {key: {k: v for k, v in s.items() if k != "seconds"} for key, s in content["scores"].items()}
        found[file.stem] = [content["recipe"], scores, content["error"]]
    return found


def until_begun(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until a sweep has begun its first run, or has ended."""
    while not any((out / "runs").glob("*")) and process.poll() is None:
        time.sleep(0.005)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments, options = parser.parse_known_args()
    options = options or [*SHORT]
    moments, same = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        process = start(alone, options)
        until_begun(process, alone)
        begun = time.monotonic()
        finish(process)
        seconds, wanted = time.monotonic() - begun, results(alone)
        for index in range(1, arguments.times + 1):
            out = Path(folder) / f"killed-{index}"
            process, moment = start(out, options), moments.uniform(0, seconds)
            until_begun(process, out)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
            done = len(results(out))
            finish(start(out, options))
            equal = results(out) == wanted
            same += equal
            print(
                f"{index:2}: killed after {moment:5.2f} of {seconds:.2f} s with {done} of {len(wanted)} runs done; "
                f"started again: {'same' if equal else 'OTHER'} scores",
                flush=True,
            )
    print(f"same scores: {same} of {arguments.times}")
    return int(same < arguments.times)


if __name__ == "__main__":
    sys.exit(main())
