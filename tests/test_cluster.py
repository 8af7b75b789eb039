"""One map, wherever it runs: in-process, on workers, on a scheduler; and what a dying worker costs."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import LocalCluster

from histoloom.cluster import device, open_pool
from histoloom.config import Cluster
from histoloom.errors import HistoloomError

pytestmark = pytest.mark.long


def double(value: int) -> int:
    return 2 * value


def die_once(mark: str) -> str:
    """Kill the worker the first time, as an out-of-memory killer would."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(value: int) -> None:
    raise HistoloomError(f"item {value} is bad")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_items_order(workers):
    with open_pool(Cluster(workers=workers), tasks=9) as run:
        assert run(double, list(range(9)), "double") == list(range(0, 18, 2))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_that_are_not_ours_are_not_used():
    """Threads that share a core wait for each other by spinning: a step then takes many times as long."""
    asked = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    asked += "from histoloom.cluster import training_threads; from histoloom.config import Cluster; "
    asked += "print(training_threads(Cluster()))"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_workers_keep_freed_memory_unless_the_user_says_otherwise(monkeypatch):
    name = "MALLOC_TRIM_THRESHOLD_"
    for value in (None, "65536"):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        with open_pool(Cluster(workers=1), tasks=1) as run:
            assert run(os.environ.get, [name], "ask") == [value or str(2**31 - 1)]


def _profiles(_: int) -> bool:
    import dask

    return dask.config.get("distributed.worker.profile.enabled")


def test_no_worker_s_time_goes_into_dask_s_profiler():
    with open_pool(Cluster(workers=1), tasks=1) as run:
        assert run(_profiles, [0], "ask") == [False]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("place", ["here()", "thread = threading.Thread(target=here); thread.start(); thread.join()"])
def test_an_array_that_is_made_again_lies_in_the_memory_of_the_former_one(place):
    asked = "import resource, threading\nfrom histoloom.allocator import keep_freed_memory\n{kept}\nlength = 2**26\n"
    asked += "def here():\n    b'x' * length\n    before = resource.getrusage(0).ru_minflt\n"
    asked += (
        "    for _ in range(4):\n        b'x' * length\n    print(resource.getrusage(0).ru_minflt - before)\n{place}"
    )
    faults = []
    for kept in ("", "keep_freed_memory()"):
        code = asked.format(kept=kept, place=place)
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")
        }  # dask leaves its own
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
        faults.append(int(done.stdout))
    assert faults[0] > 100 and faults[1] < faults[0] / 10


def test_a_given_scheduler_is_used():
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        config = Cluster(scheduler=cluster.scheduler_address)
        with open_pool(config, tasks=3) as run:
            assert run(double, [1, 2, 3], "double") == [2, 4, 6]


def test_pools_are_opened_one_after_another_in_one_process():
    """dask's settings are put back after each, and distributed's own stay."""
    asked = "from histoloom.cluster import open_pool; from histoloom.config import Cluster\n"
    asked += "if __name__ == '__main__':\n    for _ in range(2):\n        with open_pool(Cluster(workers=1), tasks=1) as run:\n"
    asked += "            assert run(abs, [-1], 'abs') == [1]\n"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_killed_workers_task_is_done_by_another(tmp_path):
    with open_pool(Cluster(workers=1), tasks=1) as run:
        assert run(die_once, [str(tmp_path / "mark")], "die once") == ["done"]


def test_a_task_that_kills_every_worker_is_an_error_that_says_so():
    with pytest.raises(HistoloomError, match="worker died"), open_pool(Cluster(workers=1, retries=1), tasks=1) as run:
        run(die, [1], "die")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_task_arrives_as_itself(workers):
    with pytest.raises(HistoloomError, match="item 3 is bad"), open_pool(Cluster(workers=workers), tasks=1) as run:
        run(complain, [3], "complain")


def test_cuda_where_there_is_none_is_an_error():
    import torch

    if torch.cuda.is_available():
        assert device(Cluster(device="cuda")) == "cuda"
    else:
        with pytest.raises(HistoloomError, match="no GPU"):
            device(Cluster(device="cuda"))
