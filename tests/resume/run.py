"""Kills training at random moments and resumes it: does it end in the same bytes?

    python tests/resume/run.py [--times 20] [--seed 0] [TRAIN OPTION …]

One run is left alone; the others are killed (SIGKILL, or another signal with --signal) at a moment drawn uniformly
from the time that the first one took to train, and started again with --resume. Prints a line a run and a last line
``same bytes: N of M``; exits with 1 unless all are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("adapter_model.safetensors", "steps.jsonl", "shots.json")
QUICK = ("--data", "pictograms/plants", "--classes", "base", "--shots", "4", "--train.epochs", "6")


def rmadapter(*arguments: str) -> subprocess.Popen[bytes]:
    """A process of the command line."""
    command = [sys.executable, "-c", "from rmadapter.cli import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def start(out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """A training process, which starts a run or goes on with it."""
    return rmadapter("train", "--out", str(out), "--resume", *options)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that must end well."""
    error = process.communicate()[1]
    if process.returncode:
        raise SystemExit(error.decode())


def digests(out: Path) -> dict[str, str]:
    """Of the files that must be the same."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED}


def state(out: Path) -> str:
    """How far a killed run came, for the eye."""
    log, checkpoint = out / "steps.jsonl", out / "checkpoint.safetensors"
    steps = len(log.read_bytes().splitlines()) if log.exists() else 0
    return f"{steps} steps, {'a' if checkpoint.exists() else 'no'} checkpoint"


def until_written(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until a run has made its folder, or has ended."""
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.005)


def whole_run(out: Path, options: list[str]) -> float:
    """Train without interruption; seconds from the first file to the end."""
    process = start(out, options)
    until_written(process, out)
    begun = time.monotonic()
    finish(process)
    return time.monotonic() - begun


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT"])
    arguments, options = parser.parse_known_args()
    options = options or [*QUICK]
    moments, same = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        seconds = whole_run(Path(folder) / "whole", options)
        wanted = digests(Path(folder) / "whole")
        for index in range(1, arguments.times + 1):
            out = Path(folder) / f"killed-{index}"
            process, moment = start(out, options), moments.uniform(0, seconds)
            until_written(process, out)
            time.sleep(moment)
            process.send_signal(getattr(signal, arguments.signal))
            killed = f"stopped after {moment:5.2f} of {seconds:.2f} s: exit {process.wait()}, {state(out)}"
            finish(start(out, options))
            equal = digests(out) == wanted
            same += equal
            print(f"{index:2}: {killed}; resumed: {'same' if equal else 'OTHER'} bytes", flush=True)
    print(f"same bytes: {same} of {arguments.times}")
    return int(same < arguments.times)


if __name__ == "__main__":
    sys.exit(main())
