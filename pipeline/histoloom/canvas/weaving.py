"""A canvas from its first step to its last, in memory or as tasks on the cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from histoloom.canvas import torus
from histoloom.canvas.blocks import Held, Weave, advance_block, start_block
from histoloom.canvas.step import Denoiser
from histoloom.cluster import Ref, Task, uses_torch
from histoloom.data.commit import commit_part, read_record

STATE = "state.npy"


def weave_in_memory(weave: Weave, denoiser: Denoiser, surroundings) -> np.ndarray:
    """Weave a small canvas in this process; (channels, height, width) clean latents."""
    layout = weave.layout
    states = [start_block(weave, number, denoiser, surroundings) for number in range(layout.count)]
    for step in range(weave.begin, weave.end):
        down, right = weave.strips(step)
        states = [
            advance_block(weave, number, step, _parts(states, layout.after(number), number, down, right), denoiser, surroundings)
            for number in range(layout.count)
        ]  # fmt: skip
    rows = [
        np.concatenate(states[start : start + len(layout.widths)], 2)
        for start in range(0, layout.count, len(layout.widths))
    ]
    return np.roll(np.concatenate(rows, 1)[: weave.channels], weave.origin(weave.end), (1, 2))


def _parts(states: list[np.ndarray], after: tuple[int, int, int], number: int, down: int, right: int):
    beside, below, corner = (states[n] for n in after)
    return states[number], beside[:, :, :right], below[:, :down], corner[:, :down, :right]


@dataclass(frozen=True)
class CanvasJob:
    """A canvas as its tasks know it: plain data, with paths that every worker can read.

    load : gives the denoiser and the surroundings; called once a process, and so compared by value.
    checkpoints : where states are committed, every `every` steps and at the end.
    scratch : a folder on the worker's own disk.
    """

    weave: Weave
    load: Callable[[], tuple]
    checkpoints: Path
    scratch: Path
    every: int

    @property
    def stops(self) -> list[int]:
        """The steps before which states are committed; the last is the end."""
        weave = self.weave
        return [*range(weave.begin + self.every, weave.end, self.every), weave.end]

    def part(self, step: int, number: int) -> str:
        return f"step-{step:04d}/block-{number:06d}"

    def done(self, step: int) -> bool:
        """Whether every block was committed before this step."""
        return all(
            read_record(self.checkpoints / self.part(step, number)) is not None
            for number in range(self.weave.layout.count)
        )


@lru_cache(maxsize=1)
def _loaded(load: Callable[[], tuple]) -> tuple:
    return load()


@uses_torch
def begin_task(job: CanvasJob, number: int, step: int) -> Held:
    """A block's state before a step: noise, or what was committed."""
    if step == job.weave.begin:
        return Held.of(job.scratch, start_block(job.weave, number, *_loaded(job.load)))
    return Held.of(job.scratch, np.load(job.checkpoints / job.part(step, number) / STATE))


@uses_torch
def advance_task(job: CanvasJob, number: int, step: int, own: Held, *strips: np.ndarray) -> Held:
    parts = (own.state(), *strips)
    return Held.of(job.scratch, advance_block(job.weave, number, step, parts, *_loaded(job.load)))


def strip_task(held: Held, height: int | None, width: int | None) -> np.ndarray:
    return held.part(height, width)


def keep_task(job: CanvasJob, number: int, step: int, held: Held) -> None:
    channels = job.weave.channels if step == job.weave.end else None
    part = Path(job.part(step, number))
    commit_part(
        job.checkpoints / part.parent, part.name, lambda folder: np.save(folder / STATE, held.state()[:channels])
    )


def segment(job: CanvasJob, start: int, stop: int, order: Callable[[int], list[int]] | None = None) -> dict[str, Task]:
    """The tasks that bring every block from one commit to the next.

    Parameters
    ----------
    order : the blocks of a step in the order of their tasks, for those who doubt that it doesn't matter.
    """
    layout, tasks = job.weave.layout, {}
    numbers = range(layout.count)

    def at(step: int, number: int) -> Ref:
        return Ref(f"state-{step}-{number}")

    for number in numbers:
        tasks[at(start, number).key] = Task(begin_task, (job, number, start), number)
    for step in range(start, stop):
        down, right = job.weave.strips(step)
        sizes = {"right": (None, right), "down": (down, None), "corner": (down, right)}
        for number in order(step) if order else numbers:
            strips = []
            for (name, size), neighbour in zip(
                sizes.items(), layout.after(number)
            ):  # cut when they are needed, not before
                strips.append(Ref(f"{name}-{step}-{neighbour}"))
                tasks[strips[-1].key] = Task(strip_task, (at(step, neighbour), *size), neighbour)
            key = at(step + 1, number).key
            tasks[key] = Task(advance_task, (job, number, step, at(step, number), *strips), number, counted=True)
    for number in numbers:
        tasks[f"keep-{number}"] = Task(keep_task, (job, number, stop, at(stop, number)), number, wanted=True)
    return tasks


def run_canvas(job: CanvasJob, graph: Callable[..., None], title: str, order=None) -> None:
    """Run what isn't committed yet, a segment after the other."""
    stops = job.stops
    last = max((stop for stop in stops if job.done(stop)), default=job.weave.begin)
    for start, stop in zip([job.weave.begin, *stops], stops):
        if start < last:
            continue
        graph(segment(job, start, stop, order), f"{title}: steps {start + 1} to {stop} of {job.weave.end}")
        if start > job.weave.begin:
            shutil.rmtree(job.checkpoints / f"step-{start:04d}", ignore_errors=True)


class Latents:
    """The finished canvas, read by boxes; (channels, height, width) float32 on a torus."""

    def __init__(self, job: CanvasJob):
        self.job, self.origin = job, job.weave.origin(job.weave.end)

    def box(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        y, x = top - self.origin[0], left - self.origin[1]
        return torus.read(self._inside, y, x, height, width, self.job.weave.layout.canvas)

    def _inside(self, rows: slice, columns: slice) -> np.ndarray:
        layout = self.job.weave.layout
        out = np.empty((self.job.weave.channels, rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for number in range(layout.count):
            top, left, height, width = layout.block(number)
            y0, y1 = max(rows.start, top), min(rows.stop, top + height)
            x0, x1 = max(columns.start, left), min(columns.stop, left + width)
            if y0 < y1 and x0 < x1:
                state = np.load(self.job.checkpoints / self.job.part(self.job.weave.end, number) / STATE, mmap_mode="r")
                out[:, y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = state[
                    :, y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return out
