"""One training by several processes of this machine, each with a GPU of its own or with some of the cores.

Every process draws a step's whole batch, and computes the rows of it that are its own. accelerate takes the mean of their gradients, so the
step is the one that a single process takes. This process is the first: it alone logs, measures and keeps checkpoints. The others get the
model and the loss by cloudpickle, through a pipe, and end with it.
"""

from __future__ import annotations

import io
import mmap
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import torch

from histoloom.errors import HistoloomError
from histoloom.progress import console
from histoloom.registry import extend, extensions, import_files, imported_files
from histoloom.training.run import Numbers

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Semaphore

    from accelerate import Accelerator

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
"""By which accelerate finds the processes of a training."""
_END_S, _GRACE_S = 10, 60
"""Seconds that processes have to end; and that this one has to notice that another died."""


def count_of(stated: int | str, batch_size: int | None, device: str) -> int:
    """How many processes a training takes.

    Parameters
    ----------
    stated : a number, or auto: the GPUs, or as many of them as divide the batch; on a CPU one.
    batch_size : rows of a step's batch; None of a training that cannot be divided.

    Raises
    ------
    HistoloomError
        when there are fewer GPUs, or the batch can't be divided among so many.
    """
    if batch_size is None:
        return 1
    gpus = torch.cuda.device_count() if device == "cuda" else None
    if stated == "auto":
        return max(n for n in range(1, (gpus or 1) + 1) if batch_size % n == 0)
    count = int(stated)
    if gpus is not None and count > gpus:
        raise HistoloomError(f"cluster.yaml asks for training_processes: {count}, and there are {gpus} GPUs.")
    if batch_size % count:
        raise HistoloomError(
            f"cluster.yaml asks for training_processes: {count}, and a batch of {batch_size} can't be divided among them evenly. "
            "Choose a number that divides it, or another batch_size. A batch has no more rows than there are train tiles."
        )
    return count


def _place() -> tuple[int, int]:
    """The rank of this process in its training, and how many there are."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there else (0, 1)


def own_rows(rows: int) -> slice:
    """Which of a step's so many rows this process computes; they are the same number for each."""
    rank, count = _place()
    each = rows // count
    return slice(rank * each, (rank + 1) * each)


def everyones(rows: torch.Tensor) -> torch.Tensor:
    """The rows (b, ...) of all processes, joined in their order. Gradients go back to whoever they came from."""
    if _place()[1] == 1:
        return rows
    from lightly.utils.dist import gather

    return torch.cat(gather(rows.contiguous()))


def take_mean_of_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients, by one exchange. A weight that none of them uses stays without one."""
    uses = [p.grad is not None for p in parameters]
    gradients = [_as_in_memory(torch.zeros_like(p) if p.grad is None else p.grad, p) for p in parameters]
    use = torch.tensor(uses, dtype=gradients[0].dtype, device=gradients[0].device)
    flat = torch.cat([use, *(gradient.reshape(-1) for gradient in gradients)])
    torch.distributed.all_reduce(flat)
    used, *means = flat.div_(_place()[1]).split([len(parameters), *(p.numel() for p in parameters)])
    for place, (parameter, mean) in enumerate(zip(parameters, means)):
        if uses[place] or used[place] > 0:  # to read a number is to wait for a GPU
            parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
            own = _as_in_memory(parameter.grad, parameter)
            own.copy_(mean.view(own.shape))


def _as_in_memory(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A view of a tensor of a parameter's shape, its axes in the order in which the parameter lies in memory: to flatten it copies nothing."""
    return values.permute(sorted(range(parameter.ndim), key=parameter.stride, reverse=True))


def mean_of_numbers(accelerator: Accelerator, numbers: Numbers) -> Numbers:
    """What was logged of a step's rows, over those of all processes."""
    own = torch.stack([torch.as_tensor(value, device=accelerator.device).float() for value in numbers.values()])
    return dict(zip(numbers, accelerator.reduce(own, "mean")))


@contextmanager
def beside(work: Any, follow: Callable[[Any], None], count: int, device: str) -> Iterator[None]:
    """Run `follow(work)` in count - 1 further processes while the body runs in this one, which is the first of them.

    Parameters
    ----------
    work : what cloudpickle can send. Arrays that are mapped from files are mapped there again.

    Raises
    ------
    HistoloomError
        when one of them died.
    """
    from accelerate.state import AcceleratorState
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, get_context, start_processes

    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in _VARIABLES}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready, over, others = get_context("spawn").Semaphore(0), threading.Event(), None
    try:
        rest = _packed(work)
        used = [file for name, file in imported_files().items() if name.encode() in rest]
        arguments = (
            _packed((extensions(), used, rest)),
            follow,
            ready,
            port,
            count,
            device,
            threads,
        )
        others = start_processes(_other, arguments, count - 1, join=False, daemon=True, start_method="spawn")
        del arguments, rest  # the packed weights
        for _ in others.processes:
            while not ready.acquire(timeout=0.1):
                others.join(timeout=0)
        AcceleratorState._reset_state(reset_partial_state=True)  # of a training that one process did before
        _become(0, count, port, threads)
        threading.Thread(target=_watch, args=(others.processes, over, count), daemon=True).start()
        yield
        for process in others.processes:
            process.join(_END_S)
    except (ProcessRaisedException, ProcessExitedException, OSError) as death:
        if isinstance(death, OSError) and others is not None:  # the training's own, such as a full disk
            raise
        raise _died(count, death) from death
    except RuntimeError:  # a collective fails where one of them is gone
        if others is None:
            raise
        try:
            others.join(timeout=_END_S)
        except (ProcessRaisedException, ProcessExitedException) as death:
            raise _died(count, death) from death
        raise
    finally:
        over.set()
        for process in others.processes if others else ():
            process.terminate()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch(processes: Sequence[BaseProcess], over: threading.Event, count: int) -> None:
    """End this process where another died and it waits for that one for ever, as it may on GPUs. What was trained is kept."""
    while not over.wait(1.0):
        if any(process.exitcode for process in processes) and not over.wait(_GRACE_S):
            console.print(str(_died(count, "It said nothing.")), markup=False)
            os._exit(1)


def _died(count: int, death: object) -> HistoloomError:
    return HistoloomError(
        f"One of the {count} processes of a training died. What was trained is kept; run the stage again, with fewer training_processes "
        f"in cluster.yaml if memory ran out. {death}"
    )


def _other(
    index: int,
    packed: bytes,
    follow: Callable[[Any], None],
    ready: Semaphore,
    port: int,
    count: int,
    device: str,
    threads: int,
) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # Ctrl-C ends it without a word: the first process says what is to be said
    rank = index + 1
    _become(rank, count, port, threads)
    if device == "cuda":
        torch.cuda.set_device(rank)
    pieces, files, rest = cloudpickle.loads(packed)
    extend(pieces)
    import_files(files)
    work = cloudpickle.loads(rest)
    ready.release()
    follow(work)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _become(rank: int, count: int, port: int, threads: int) -> None:
    values = (rank, rank, count, count, "127.0.0.1", port, threads)
    os.environ.update({name: str(value) for name, value in zip(_VARIABLES, values)})
    torch.set_num_threads(threads)


class _Pickler(cloudpickle.Pickler):
    """cloudpickle's, but for three things.

    Of a whole array that is mapped from a file, the file is sent. Of a tensor the numbers are, to whatever device of its kind the other has;
    torch's own way takes `torch.load` without its guard. What accelerate put around a network's forward is put around it again.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.memmap) and isinstance(obj.base, mmap.mmap) and obj.filename is not None:
            return np.memmap, (obj.filename, obj.dtype, "r", obj.offset, obj.shape, "F" if obj.flags.fnc else "C")
        if isinstance(obj, torch.Tensor):
            numbers = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            is_weight = isinstance(obj, torch.nn.Parameter)
            return _tensor, (numbers, obj.dtype, obj.shape, obj.device.type, is_weight, obj.requires_grad)
        if (
            type(obj).__module__ == "accelerate.utils.operations"
        ):  # a network that was trained before under mixed precision
            return type(obj), (obj.model_forward,)
        return super().reducer_override(obj)


def _tensor(
    numbers: np.ndarray, dtype: torch.dtype, shape: torch.Size, device: str, is_weight: bool, requires_grad: bool
) -> torch.Tensor:
    tensor = torch.from_numpy(numbers.copy()).view(dtype) if len(numbers) else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape).to(device)
    return torch.nn.Parameter(tensor, requires_grad) if is_weight else tensor.requires_grad_(requires_grad)


def _packed(work: Any) -> bytes:
    out = io.BytesIO()
    _Pickler(out).dump(work)
    return out.getvalue()
