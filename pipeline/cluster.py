"""The only file that knows how to reach dask: the same tasks in-process, on this machine's cores or GPUs, or on a
scheduler somewhere else.

Tasks are pure in their arguments and commit what they make, so that dask may run one twice. A worker runs one torch
thread, because a network's output differs in its last bits with the number of threads; it loads a model once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.config import Cluster
from pipeline.errors import HistoloomError
from pipeline.progress import progress

Map = Callable[[Callable[..., Any], Sequence[Any], str], list[Any]]


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


def training_threads(config: Cluster) -> int:
    return os.cpu_count() or 1 if config.training_threads == "auto" else config.training_threads


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as every task does, wherever it runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def open_pool(config: Cluster, *, tasks: int, gpu: bool = False) -> Iterator[Map]:
    """Yield `map(function, items, title)`, which returns the results in the items' order.

    Parameters
    ----------
    tasks : how many there will be; no more workers than this are started.
    gpu : whether the tasks use a GPU; then there is one worker a GPU, where there are GPUs.
    """
    if config.scheduler is None and (config.workers == 0 or tasks == 0):
        yield _map_here
        return
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.allowed-failures": config.retries,
        "logging.distributed": "error",
        "distributed.worker.memory.terminate": 0.98,
        "distributed.admin.tick.limit": "60s",
    }
    with dask.config.set(settings), _make_cluster(config, tasks, gpu) as cluster, Client(cluster) as client:
        yield lambda function, items, title: _map_dask(client, config, function, items, title)


@contextmanager
def _make_cluster(config: Cluster, tasks: int, gpu: bool):
    if config.scheduler is not None:
        yield config.scheduler
        return
    if gpu and device(config) == "cuda":
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            raise HistoloomError(
                "Running on GPUs needs dask-cuda: pip install 'histoloom[cuda]', or set "
                "workers: 0 in cluster.yaml for one GPU in this process."
            ) from None
        with LocalCUDACluster(dashboard_address=None) as cluster:
            yield cluster
        return
    from distributed import LocalCluster

    workers = (os.cpu_count() or 1) if config.workers == "auto" else config.workers
    with LocalCluster(
        n_workers=max(1, min(workers, tasks)),
        threads_per_worker=1,
        processes=True,
        memory_limit=config.memory_limit,
        dashboard_address=None,
    ) as cluster:
        yield cluster


def _call(function: Callable, item: Any) -> Any:
    import sys

    if "torch" in sys.modules or getattr(function, "uses_torch", False):
        with one_thread():
            return function(item)
    return function(item)


def _map_here(function: Callable, items: Sequence[Any], title: str) -> list[Any]:
    with progress(title, len(items)) as advance:
        results = []
        for item in items:
            results.append(_call(function, item))
            advance()
        return results


def _map_dask(client, config: Cluster, function: Callable, items: Sequence[Any], title: str) -> list[Any]:
    from distributed import KilledWorker, as_completed

    futures = client.map(_call, [function] * len(items), items, pure=False)
    order = {future.key: index for index, future in enumerate(futures)}
    results: list[Any] = [None] * len(items)
    try:
        with progress(title, len(items)) as advance:
            for future in as_completed(futures):
                results[order[future.key]] = future.result()
                advance()
    except KilledWorker as error:
        raise HistoloomError(
            f"A worker died {config.retries + 1} times at one task of '{title}', most often for want "
            "of memory. Lower `workers` or the batch size, and run again: committed parts are kept."
        ) from error
    finally:
        client.cancel(futures)
    return results


def use_training_threads(config: Cluster) -> None:
    """Let torch use as many threads as cluster.yaml grants to training."""
    import torch

    torch.set_num_threads(training_threads(config))
