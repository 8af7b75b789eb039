"""How glibc serves the large arrays of networks: from memory that it keeps.

As it comes, glibc maps each array above 32 MB anew and unmaps it when it is freed. A network that gets its activations at each forward then
spends up to half its time on page faults (benchmarks/sampling.py). One arena, because others are divided into heaps of 64 MB.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NamedTuple


class _Setting(NamedTuple):
    """The number of mallopt(3), and the value."""

    number: int
    value: int


_SETTINGS = {
    "MALLOC_ARENA_MAX": _Setting(-8, 1),
    "MALLOC_MMAP_MAX_": _Setting(-4, 0),
    "MALLOC_TRIM_THRESHOLD_": _Setting(-1, 2**31 - 1),
}
ENVIRONMENT = {name: setting.value for name, setting in _SETTINGS.items()}
"""The same for a process that is to be started."""


def keep_freed_memory() -> None:
    """Set it for this process, which should not have threads yet. A variable of the user's own goes before; without glibc nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for name, setting in _SETTINGS.items():
        if mallopt is not None and name not in os.environ:
            mallopt(*setting)
