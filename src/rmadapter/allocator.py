"""How glibc's allocator deals with large tensors: a setting of a whole process, so only our own processes make it."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST, KEPT = 1 << 30, 256 << 20
"""Bytes up to which a tensor comes from the heap, and free bytes at the heap's end that stay there."""
HUGE = "THP_MEM_ALLOC_ENABLE"
"""An environment variable of torch, which reads it at its first tensor."""
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Environment variables by which a user decides instead."""


def keep_freed() -> bool:
    """Keep memory that was freed for the next tensor; says whether it does from now on.

    By default glibc asks the system for every tensor beyond 32 MiB and gives it back at once, so that each is cleared
    and mapped anew, page by page: 4 % and more of a training step at ViT-B/16 and batch 16 on a CPU. With this, up to
    256 MiB stay with a process that it does not use. Torch is told besides to put what is larger than 2 MiB on whole
    huge pages, so that tensors that come and go leave fewer gaps: a sixth less at the peak of such a step.

    Called where a process of the command line begins, and not by importing or by ``fit``: other programs that use the
    package choose for themselves. Nothing is done on other systems and C libraries.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    # An older glibc refuses the first; the second alone would end what it adapts by itself, and make things worse.
    if not (mallopt and mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT)):
        return False
    os.environ.setdefault(HUGE, "1")
    return True
