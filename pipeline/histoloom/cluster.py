"""The one door to dask: the same tasks in-process, on this machine's cores or GPUs, or on a
scheduler somewhere else.

Tasks are pure in their arguments and commit what they make, so that dask may run one twice. A worker runs one torch
thread, because a network's output differs in its last bits with the number of threads; it loads a model once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from histoloom import allocator
from histoloom.config import Cluster
from histoloom.crew import Work, crew_here, crew_of_dask
from histoloom.errors import HistoloomError, with_extra
from histoloom.progress import progress
from histoloom.registry import extend, extensions
from histoloom.scheduler import check_versions, reach, wait_for_workers, words_for_what_died

F = TypeVar("F", bound=Callable[..., Any])


def uses_torch(task: F) -> F:
    """Mark a task that computes with torch: it runs on one thread."""
    task.__dict__["uses_torch"] = True
    return task


@dataclass(frozen=True)
class Pool:
    """Where tasks are done. Called with (function, items, title), it returns the results in the items' order.

    crew : does one piece of work side by side, by members that write to one another; called with (work, most, title, total).
        `work` takes a `Member`; there are at most `most` of them. `total` is what they advance by.
    """

    map: Callable[[Callable[..., Any], Sequence[Any], str], list[Any]]
    crew: Callable[[Work, int, str, int], None]

    def __call__(self, function: Callable[..., Any], items: Sequence[Any], title: str) -> list[Any]:
        return self.map(function, items, title)


def device(config: Cluster) -> str:
    """'cuda' or 'cpu', as cluster.yaml asks; cuda where there is none is an error."""
    import torch

    if config.device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if config.device == "cuda":
        raise HistoloomError(
            "cluster.yaml asks for device: cuda, and torch sees no GPU. See `histoloom doctor`, or set device: auto."
        )
    return "cpu"


def cores() -> int:
    """Cores that this process may use: of the machine's, what its affinity and its control group's quota leave."""
    from dask.system import CPU_COUNT

    return CPU_COUNT


def training_threads(config: Cluster) -> int:
    return cores() if config.training_threads == "auto" else config.training_threads


@contextmanager
def threads_kept() -> Iterator[None]:
    """Let torch have as many threads afterwards as before, whatever is set in between; also as a decorator."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as every task does, wherever it runs."""
    import torch

    with threads_kept():
        torch.set_num_threads(1)
        yield


@contextmanager
def open_pool(config: Cluster, *, tasks: int, gpu: bool = False) -> Iterator[Pool]:
    """Yield a pool of workers.

    Parameters
    ----------
    tasks : how many there will be; no more workers than this are started.
    gpu : whether the tasks use a GPU; then there is one worker a GPU, where there are GPUs.
    """
    if config.scheduler is None and (config.workers == 0 or tasks == 0):
        yield Pool(_map_here, _crew_here)
        return
    import dask
    import distributed  # noqa: F401  before the settings, or its defaults go with them

    logging.getLogger("distributed").setLevel(logging.ERROR)  # whatever else has set up logging in this process
    settings = {
        "distributed.scheduler.allowed-failures": config.retries,
        "distributed.worker.memory.terminate": 0.98,
        "distributed.worker.profile.enabled": False,  # it takes a fifteenth of a network's time
        "distributed.admin.tick.limit": "60s",
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in allocator.ENVIRONMENT.items()},
    }
    with dask.config.set(settings), _open_client(config, tasks, gpu=gpu) as client:
        yield Pool(
            lambda function, items, title: _map_dask(client, config, function, items, title),
            lambda work, most, title, total: crew_of_dask(
                client,
                config.scheduler,
                config.retries,
                partial(_call_on_worker, extensions(), work),
                most,
                title,
                total,
            ),
        )


@contextmanager
def _open_client(config: Cluster, tasks: int, *, gpu: bool) -> Iterator:
    if config.scheduler is not None:
        with reach(config.scheduler) as client:
            wait_for_workers(client, config.scheduler)
            check_versions(client, config.scheduler)
            yield client
        return
    from distributed import Client

    with _make_cluster(config, tasks, gpu=gpu) as cluster, Client(cluster) as client:
        wait_for_workers(client, None)
        yield client


_LOOPBACK = {
    "host": "127.0.0.1",
    "dashboard_address": None,  # no dashboard; the scheduler's HTTP server is opened all the same
    "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # any free port
}
"""Whoever reaches a port of dask's can run code: those of a cluster of this machine are open to this machine alone."""


@contextmanager
def _make_cluster(config: Cluster, tasks: int, *, gpu: bool):
    if gpu and device(config) == "cuda":
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            raise HistoloomError(
                f"Running on GPUs needs dask-cuda: {with_extra('cuda')}, or set "
                "workers: 0 in cluster.yaml for one GPU in this process."
            ) from None
        import torch

        gpus = torch.cuda.device_count()
        workers = gpus if config.workers == "auto" else min(config.workers, gpus)
        with LocalCUDACluster(
            n_workers=max(1, min(workers, tasks)), memory_limit=config.memory_limit, **_LOOPBACK
        ) as cluster:
            yield cluster
        return
    from distributed import LocalCluster

    workers = cores() if config.workers == "auto" else config.workers
    with LocalCluster(
        n_workers=max(1, min(workers, tasks)),
        threads_per_worker=1,
        processes=True,
        memory_limit=config.memory_limit,
        **_LOOPBACK,
        silence_logs=logging.CRITICAL,  # that a worker misses a scheduler which has closed is no news
    ) as cluster:
        yield cluster


def _call_on_worker(pieces: dict[str, dict[str, str]], function: Callable, *arguments: Any) -> Any:
    """The same in a process whose only work is tasks: torch stays on one thread there, whichever thread asks first.

    pieces : from outside the package, that the tasks may name.
    """
    import sys

    extend(pieces)
    if "torch" in sys.modules or getattr(function, "uses_torch", False):
        import torch

        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
    return function(*arguments)


def _call(function: Callable, *arguments: Any) -> Any:
    import sys

    if "torch" in sys.modules or getattr(function, "uses_torch", False):
        with one_thread():
            return function(*arguments)
    return function(*arguments)


def _map_here(function: Callable, items: Sequence[Any], title: str) -> list[Any]:
    with progress(title, len(items)) as advance:
        results = []
        for item in items:
            results.append(_call(function, item))
            advance()
        return results


def _crew_here(work: Work, most: int, title: str, total: int) -> None:
    crew_here(partial(_call, work), title, total)


def _map_dask(client, config: Cluster, function: Callable, items: Sequence[Any], title: str) -> list[Any]:
    from distributed import as_completed

    futures = client.map(partial(_call_on_worker, extensions(), function), items, pure=False)
    order = {future.key: index for index, future in enumerate(futures)}
    results: list[Any] = [None] * len(items)
    try:
        with words_for_what_died(config.scheduler, config.retries, title), progress(title, len(items)) as advance:
            for future in as_completed(futures):
                results[order[future.key]] = future.result()
                advance()
    finally:
        if client.status == "running":
            client.cancel(futures)
    return results


def use_training_threads(config: Cluster) -> None:
    """Let torch use as many threads as cluster.yaml grants to training."""
    import torch

    torch.set_num_threads(training_threads(config))
