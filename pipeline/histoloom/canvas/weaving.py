"""A canvas from its first step to its last, in memory or as tasks on the cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from histoloom.canvas import torus
from histoloom.canvas.blocks import CanvasPlan, StateFile, advance_block, start_block
from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.step import WindowDenoiser
from histoloom.cluster import Ref, Task, uses_torch
from histoloom.data.commit import commit_part, read_record
from histoloom.data.pixel_box import PixelBox

STATE = "state.npy"


def weave_in_memory(plan: CanvasPlan, denoiser: WindowDenoiser, inputs: CanvasInputs) -> np.ndarray:
    """Weave a small canvas in this process; (channels, height, width) clean latents."""
    blocks = plan.blocks
    states = [start_block(plan, number, denoiser, inputs) for number in range(blocks.count)]
    for step in range(plan.begin, plan.end):
        parts = [_parts(plan, states, number, step) for number in range(blocks.count)]
        states = [advance_block(plan, n, step, of_block, denoiser, inputs) for n, of_block in enumerate(parts)]
    columns = len(blocks.widths)
    whole = np.block([states[start : start + columns] for start in range(0, blocks.count, columns)])
    return np.roll(whole[: plan.channels], plan.origin(plan.end), (1, 2))


def _parts(plan: CanvasPlan, states: list[np.ndarray], number: int, step: int) -> tuple[np.ndarray, ...]:
    """What `advance_block` takes of a block and its neighbours."""
    beside, below, corner = (states[n] for n in plan.blocks.after(number))
    down, right = plan.strips(step)
    return states[number], beside[:, :, :right], below[:, :down], corner[:, :down, :right]


LoadCanvas = Callable[[], tuple[WindowDenoiser, CanvasInputs]]


@dataclass(frozen=True)
class CanvasJob:
    """A canvas as its tasks know it: plain data, with paths that every worker can read.

    load : called once a process, and so compared by value.
    checkpoints : where states are committed, every `every` steps and at the end.
    scratch : a folder on the worker's own disk.
    """

    plan: CanvasPlan
    load: LoadCanvas
    checkpoints: Path
    scratch: Path
    every: int

    @property
    def stops(self) -> list[int]:
        """The steps before which states are committed; the last is the end."""
        plan = self.plan
        return [*range(plan.begin + self.every, plan.end, self.every), plan.end]

    def part(self, step: int, number: int) -> str:
        return f"step-{step:04d}/block-{number:06d}"

    def done(self, step: int) -> bool:
        """Whether every block was committed before this step."""
        return all(
            read_record(self.checkpoints / self.part(step, number)) is not None
            for number in range(self.plan.blocks.count)
        )


@lru_cache(maxsize=1)
def _loaded(load: LoadCanvas) -> tuple[WindowDenoiser, CanvasInputs]:
    return load()


@uses_torch
def begin_task(job: CanvasJob, number: int, step: int) -> StateFile:
    """A block's state before a step: noise, or what was committed."""
    if step == job.plan.begin:
        return StateFile.of(job.scratch, start_block(job.plan, number, *_loaded(job.load)))
    return StateFile.of(job.scratch, np.load(job.checkpoints / job.part(step, number) / STATE))


@uses_torch
def advance_task(job: CanvasJob, number: int, step: int, own: StateFile, *strips: np.ndarray) -> StateFile:
    parts = (own.state(), *strips)
    return StateFile.of(job.scratch, advance_block(job.plan, number, step, parts, *_loaded(job.load)))


def strip_task(state: StateFile, height: int | None, width: int | None) -> np.ndarray:
    return state.part(height, width)


def keep_task(job: CanvasJob, number: int, step: int, state: StateFile) -> None:
    kept = state.state()[: job.plan.channels if step == job.plan.end else None]
    part = Path(job.part(step, number))
    commit_part(job.checkpoints / part.parent, part.name, lambda folder: np.save(folder / STATE, kept))


def segment(job: CanvasJob, start: int, stop: int, order: Callable[[int], list[int]] | None = None) -> dict[str, Task]:
    """The tasks that bring every block from one commit to the next.

    Parameters
    ----------
    order : the blocks of a step in the order of their tasks, for those who doubt that it doesn't matter.
    """
    blocks, tasks = job.plan.blocks, {}
    numbers = range(blocks.count)

    def at(step: int, number: int) -> Ref:
        return Ref(f"state-{step}-{number}")

    for number in numbers:
        tasks[at(start, number).key] = Task(begin_task, (job, number, start), number)
    for step in range(start, stop):
        down, right = job.plan.strips(step)
        sizes = {"right": (None, right), "down": (down, None), "corner": (down, right)}
        for number in order(step) if order else numbers:
            strips = []  # cut when they are needed, not before
            for (name, size), neighbour in zip(sizes.items(), blocks.after(number)):
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
    last = max((stop for stop in stops if job.done(stop)), default=job.plan.begin)
    for start, stop in zip([job.plan.begin, *stops], stops):
        if start < last:
            continue
        graph(segment(job, start, stop, order), f"{title}: steps {start + 1} to {stop} of {job.plan.end}")
        if start > job.plan.begin:
            shutil.rmtree(job.checkpoints / f"step-{start:04d}", ignore_errors=True)


class Latents:
    """The finished canvas, a torus of clean latents, read by boxes."""

    def __init__(self, job: CanvasJob):
        self.job, self.origin = job, job.plan.origin(job.plan.end)

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(channels, height, width) float32 of a box, latent px of the canvas; it may reach over the canvas's borders."""
        top, left = self.origin
        box = PixelBox(box.left - left, box.top - top, box.width, box.height)
        return torus.read(self._inside, box, self.job.plan.blocks.canvas)

    def _inside(self, rows: slice, columns: slice) -> np.ndarray:
        blocks, end = self.job.plan.blocks, self.job.plan.end
        out = np.empty((self.job.plan.channels, rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for number in range(blocks.count):
            block = blocks.block(number)
            y0, y1 = max(rows.start, block.top), min(rows.stop, block.bottom)
            x0, x1 = max(columns.start, block.left), min(columns.stop, block.right)
            if y0 < y1 and x0 < x1:
                state = np.load(self.job.checkpoints / self.job.part(end, number) / STATE, mmap_mode="r")
                here = state[:, y0 - block.top : y1 - block.top, x0 - block.left : x1 - block.left]
                out[:, y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = here
        return out
