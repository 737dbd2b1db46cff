"""Freed memory stays where the command line says so, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rmadapter import allocator, cli

ASK = """
import ctypes, os, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

import rmadapter, rmadapter.cli
before = [faults() for _ in range(8)][-1]
from rmadapter.allocator import keep_freed
done = keep_freed()
print(done, before, [faults() for _ in range(8)][-1], os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""


def asked(**environment: str) -> tuple[bool, int, int, str]:
    """In a process of its own: what ``keep_freed`` says, pages mapped for 64 MiB before and after it, huge pages."""
    ours = (*allocator.SETTINGS, allocator.HUGE)
    plain = {name: value for name, value in os.environ.items() if name not in ours}
    run = subprocess.run(
        [sys.executable, "-c", ASK], env=plain | environment, check=True, capture_output=True, text=True
    )
    done, before, after, huge = run.stdout.split()
    return done == "True", int(before), int(after), huge


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again_where_that_was_asked_for() -> None:
    done, before, after, huge = asked()
    if not done:
        pytest.skip("a C library that lacks it, or refuses it")
    assert before >= 32  # by importing, nothing is set; huge pages have 2 MiB
    assert after == 0 and huge == "1"
    assert asked(THP_MEM_ALLOC_ENABLE="0")[3] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_users_own_setting_stays() -> None:
    done, before, after, huge = asked(MALLOC_MMAP_THRESHOLD_="1000000")
    assert not done and after == before and huge == "None"


def test_the_command_line_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(allocator, "keep_freed", lambda: calls.append(True))
    monkeypatch.setattr(sys, "argv", ["rmadapter", "--version"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == [True]


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda *_: pytest.fail("it was touched"))
    assert not allocator.keep_freed()
