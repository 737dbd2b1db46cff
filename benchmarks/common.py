"""What the benchmarks share: interleaved timing, peak memory of fresh processes, and the record of machine and load."""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rmadapter import allocator, provenance

RESULTS = Path(__file__).parent / "results"
"""Where JSON goes; git does not keep it."""
STARTED = os.getloadavg()
"""The machine's load in the last 1, 5 and 15 minutes, when a benchmark begins."""
KEEPS = allocator.keep_freed()
"""Whether freed memory stays with the process, on every side: our command line begins with it."""
MALLOC = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "MKL_", "KMP_")
"""Beginnings of the names of variables of the environment that change memory or threads."""
Times = dict[str, list[float]]
"""Seconds of every side, one a repeat."""


def parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--short", action="store_true", help="the least that shows that it works")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    made.add_argument("--fresh", help=argparse.SUPPRESS)  # what a fresh process is asked for, as JSON
    return made


def interleaved(sides: Mapping[str, Callable[[], object]], repeats: int, warm: int = 1) -> Times:
    """Seconds of each side, run in turn, every other time in reverse order; the first ``warm`` turns do not count."""
    times: Times = {name: [] for name in sides}
    for turn in range(warm + repeats):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            begun = time.perf_counter()
            sides[name]()
            if turn >= warm:
                times[name].append(time.perf_counter() - begun)
    return times


def ratio(times: Times, over: str, under: str) -> dict[str, float]:
    """How many times longer ``over`` takes: the median of the repeats' own ratios, the least and the largest."""
    each = [a / b for a, b in zip(times[over], times[under], strict=True)]
    return {"median": round(statistics.median(each), 3), "least": round(min(each), 3), "most": round(max(each), 3)}


def medians(times: Times) -> dict[str, float]:
    """Median seconds of every side."""
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def fresh(script: str, what: Mapping[str, Any], times: int = 1) -> dict[str, Any]:
    """What a script, given ``--fresh``, prints as its last line: the median of each number over as many processes."""
    answers = [_fresh(script, what) for _ in range(times)]
    return {key: statistics.median(answer[key] for answer in answers) for key in answers[0]}


def _fresh(script: str, what: Mapping[str, Any]) -> dict[str, Any]:
    trim()
    run = subprocess.run([sys.executable, script, "--fresh", json.dumps(what)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{what}: exit code {run.returncode}\n{run.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def trim() -> None:
    """Give back what was freed: after building a model, and before another process needs it."""
    gc.collect()
    ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)


def memory(step: Callable[[], object], steps: int = 2) -> dict[str, float]:
    """MiB that steps need at most beyond what the process holds before them, and in all. For a fresh process."""
    trim()
    provenance.reset_peak_memory("cpu")
    before = provenance.peak_memory("cpu")
    for _ in range(steps):
        step()
    after = provenance.peak_memory("cpu")
    if before is None or after is None:
        raise RuntimeError("peak memory is read from /proc/self/status, which this system lacks")
    return {"step_MiB": round(after - before, 1), "process_MiB": after}


def available() -> float:
    """MiB of memory that could be had now."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable:"))


def settings() -> dict[str, Any]:
    """What else decides times and memory: the processor, huge pages, and what the environment asks for."""
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return {
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), None),
        "huge_pages": huge.read_text(encoding="ascii").strip() if huge.exists() else None,
        "keeps_freed_memory": KEEPS,
        "environment": {key: value for key, value in os.environ.items() if key.startswith(MALLOC)},
    }


def write(name: str, arguments: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Print results, and keep them as JSON with what they were measured on."""
    given = {key: str(value) for key, value in vars(arguments).items() if key not in ("fresh", "out")}
    whole = {
        "benchmark": name,
        "arguments": given,
        "machine": provenance.machine("cpu") | settings(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "load": {"before": _rounded(STARTED), "after": _rounded(os.getloadavg())},
        "results": results,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{name}.json"
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"load {whole['load']}; written: {file}")


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 2) for value in values]
