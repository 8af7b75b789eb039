"""A canvas from its first step to its last: in memory, or by a crew that commits it every few steps."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from histoloom.canvas import torus
from histoloom.canvas.blocks import CanvasPlan, StatesOnDisk, advance_block, start_block
from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.shares import Advance, Share, States, advance_share
from histoloom.canvas.step import WindowDenoiser
from histoloom.crew import Member, Work
from histoloom.data.commit import commit_part, read_record
from histoloom.data.pixel_box import PixelBox

STATE = "state.npy"


def weave_in_memory(plan: CanvasPlan, denoiser: WindowDenoiser, inputs: CanvasInputs) -> np.ndarray:
    """Weave a small canvas in this process; (channels, height, width) clean latents."""
    blocks = plan.blocks
    begun: States = {number: start_block(plan, number, denoiser, inputs) for number in range(blocks.count)}
    advance = _advance(plan, denoiser, inputs)
    states = advance_share(Share(blocks, 0, 1), plan.strips, (begun, {}), plan.begin, plan.end, advance, Member.alone())
    columns = len(blocks.widths)
    rows = [torch.cat([states[n] for n in range(at, at + columns)], -1) for at in range(0, blocks.count, columns)]
    return torch.cat(rows, -2)[: plan.channels].roll(plan.origin(plan.end), (1, 2)).cpu().numpy()


def _advance(plan: CanvasPlan, denoiser: WindowDenoiser, inputs: CanvasInputs) -> Advance:
    return lambda number, step, parts: advance_block(plan, number, step, parts, denoiser, inputs)


LoadCanvas = Callable[[], tuple[WindowDenoiser, CanvasInputs]]


@dataclass(frozen=True)
class CanvasJob:
    """A canvas as a crew knows it: plain data, with paths that every worker can read.

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


_LOADING = Lock()


def _loaded(load: LoadCanvas) -> tuple[WindowDenoiser, CanvasInputs]:
    with _LOADING:  # two members of one process load once
        return _load_once(load)


@lru_cache(maxsize=1)
def _load_once(load: LoadCanvas) -> tuple[WindowDenoiser, CanvasInputs]:
    return load()


def weave_share(job: CanvasJob, start: int, stop: int, member: Member) -> None:
    """Bring a member's blocks from one commit to the next."""
    (denoiser, inputs), share = _loaded(job.load), Share(job.plan.blocks, member.rank, member.count)
    scratch = job.scratch / uuid.uuid4().hex
    try:
        states = _room(job.plan, share, denoiser, scratch)
        for number in share.numbers:
            if start == job.plan.begin:
                states[0][number] = start_block(job.plan, number, denoiser, inputs)
            else:
                kept = np.load(job.checkpoints / job.part(start, number) / STATE)
                states[0][number] = torch.from_numpy(kept).to(denoiser.device)
        advance = _advance(job.plan, denoiser, inputs)
        made = advance_share(share, job.plan.strips, states, start, stop, advance, member)
        for number in share.numbers:
            _keep(job, stop, number, made[number])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _room(plan: CanvasPlan, share: Share, denoiser: WindowDenoiser, scratch: Path) -> tuple[States, States]:
    """Where a member's states lie: on its GPU where they take less than a quarter of what is free there, else on disk."""
    if denoiser.device.startswith("cuda"):
        boxes = [plan.blocks.block(number) for number in share.numbers]
        size = 4 * plan.channels * (1 + denoiser.solver.history) * sum(box.height * box.width for box in boxes)
        if 2 * size < torch.cuda.mem_get_info()[0] / 4:
            return {}, {}
    return StatesOnDisk(scratch / "now"), StatesOnDisk(scratch / "following")


def _keep(job: CanvasJob, step: int, number: int, state: torch.Tensor) -> None:
    kept, part = state[: job.plan.channels if step == job.plan.end else None], Path(job.part(step, number))
    commit_part(job.checkpoints / part.parent, part.name, lambda folder: np.save(folder / STATE, kept.cpu().numpy()))


def run_canvas(job: CanvasJob, crew: Callable[[Work, int, str, int], None], title: str) -> None:
    """Run what isn't committed yet, a segment after the other."""
    stops, count = job.stops, job.plan.blocks.count
    last = max((stop for stop in stops if job.done(stop)), default=job.plan.begin)
    for start, stop in zip([job.plan.begin, *stops], stops):
        if start < last:
            continue
        said = f"{title}: steps {start + 1} to {stop} of {job.plan.end}"
        crew(partial(weave_share, job, start, stop), count, said, count * (stop - start))
        if start > job.plan.begin:
            shutil.rmtree(job.checkpoints / f"step-{start:04d}", ignore_errors=True)
    shutil.rmtree(job.scratch, ignore_errors=True)  # of workers that were killed


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
