"""What the benchmarks share: their command line, the machine's description, and the results' form."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from histoloom.cluster import device
from histoloom.config import Cluster


def arguments(
    description: str, parts: tuple[str, ...] = (), fractions: tuple[float, ...] = (), **folders: str
) -> argparse.Namespace:
    """Parse `--smoke`, `--json PATH`, `--only` some of `parts`, `--fractions` and, for each of `folders` (name to help), `--NAME PATH`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="small sizes, within a minute on two cores")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results here")
    if parts:
        parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="measure these alone")
    if fractions:
        text = "measure at these fractions of the labels alone"
        parser.add_argument("--fractions", nargs="+", type=float, choices=fractions, default=fractions, help=text)
    for name, text in folders.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=text)
    return parser.parse_args()


def chip() -> str:
    """Where networks compute: on a GPU where there is one."""
    return device(Cluster())


class Seconds(NamedTuple):
    """What one call took: on the clock, and of all cores together."""

    wall: float
    cpu: float


def seconds(work: Callable[[], object]) -> Seconds:
    start = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Seconds(time.perf_counter() - start[0], time.process_time() - start[1])


def machine() -> dict:
    """CPU model, cores that this process may use, memory, platform, and the GPU where there is one."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "platform": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []


def versions() -> dict[str, str]:
    import openslide

    names = ("histoloom", "torch", "openslide-python", "zarr", "diffusers", "numpy", "pillow")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "openslide": openslide.__library_version__, **found}


@contextmanager
def anonymous_memory() -> Iterator[list[float]]:
    """What this process has of it while the body runs, MiB, every 20 ms: what is mapped from files is not in it."""
    seen, over = [_anonymous_mib()], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(_anonymous_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def in_process(module: str, *arguments: str) -> dict[str, Any]:
    """What a module that is run in a process of its own prints last, as JSON."""
    command = [sys.executable, "-m", module, *arguments]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def flat(values: dict, prefix: str = "") -> dict:
    """Nested keys joined by dots."""
    out = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out


def report(name: str, smoke: bool, sizes: dict, keys: dict[str, float], details: dict, path: Path | None) -> None:
    """Print the keys and, where a path is given, write them with machine, versions and sizes.

    Parameters
    ----------
    keys : the ratios that the benchmark is about.
    details : what they were made of: seconds, repeats; of this machine and moment only.
    """
    table = Table(title=f"{name}{' (smoke)' if smoke else ''}")
    table.add_column("key")
    table.add_column("value", justify="right")
    for key, value in {**keys, **details}.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "benchmark": name,
            "smoke": smoke,
            "machine": machine(),
            "versions": versions(),
            "sizes": sizes,
            "keys": keys,
            "details": details,
        }
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
