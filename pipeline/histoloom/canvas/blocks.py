"""A canvas as fixed blocks: each is told of its neighbours by strips alone.

Blocks never change their size, whoever works on them. On a CPU a block's state lies in a file on the disk of the worker
that made it, so that memory holds one block and its strips; what travels are the strips right of a block, below it and at
that corner. Every few steps the states are committed to the study's work folder, and the next steps begin from there:
a worker that is lost, or a run that is killed, costs what was done since.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from histoloom.canvas import torus
from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.step import WindowDenoiser, step_region
from histoloom.canvas.window_layouts import WindowLayout, Windows
from histoloom.data.pixel_box import PixelBox
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError


@dataclass(frozen=True)
class BlockGrid:
    """A canvas cut into blocks.

    heights, widths : of the rows and columns of blocks, latent px.
    """

    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width), latent px."""
        return sum(self.heights), sum(self.widths)

    @property
    def count(self) -> int:
        return len(self.heights) * len(self.widths)

    def block(self, number: int) -> PixelBox[int]:
        """Latent px of the blocks' own frame."""
        row, column = divmod(number, len(self.widths))
        return PixelBox(sum(self.widths[:column]), sum(self.heights[:row]), self.widths[column], self.heights[row])

    def after(self, number: int) -> tuple[int, int, int]:
        """The blocks right of this one, below it, and at that corner."""
        row, column = divmod(number, len(self.widths))
        down, right = (row + 1) % len(self.heights), (column + 1) % len(self.widths)
        n = len(self.widths)
        return row * n + right, down * n + column, down * n + right


def block_grid(height: int, width: int, cell: int, block: int, window: int) -> BlockGrid:
    """Blocks of whole cells, near `block` on a side; the last ends where the canvas does.

    Every block is at least a window on each side, which the strips need; where the last would be less, the canvas is
    filled up to whole cells.
    """

    def spans(length: int) -> tuple[int, ...]:
        cells = max(-(-length // cell), -(-window // cell))
        most = max(1, cells // -(-window // cell))
        count = min(most, max(1, round(cells * cell / block)))
        sides = [len(part) * cell for part in np.array_split(np.arange(cells), count)]
        last = sides[-1] - (cells * cell - length)
        return (*sides[:-1], last if last >= window else sides[-1])

    return BlockGrid(spans(height), spans(width))


class StatesOnDisk:
    """Block to state, in files of one member's own: memory holds what is being read of them."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def __getitem__(self, number: int) -> torch.Tensor:
        """Mapped; what is written into it does not reach the file."""
        return torch.from_numpy(np.load(self._path(number), mmap_mode="c"))

    def __setitem__(self, number: int, state: torch.Tensor) -> None:
        path = self._path(number)
        try:
            np.save(path.with_suffix(".new.npy"), state.cpu().numpy())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise HistoloomError(
                f"The disk that holds {self.folder} is full; the canvas is kept as it was last committed. Make room and run "
                "the same command again: it goes on from there."
            ) from error
        path.with_suffix(".new.npy").replace(path)  # what is still mapped of the former state stays as it is

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npy"


@dataclass(frozen=True)
class CanvasPlan:
    """The steps of one canvas.

    channels : of its latents.
    begin, end : the first step that is run, and the number of steps. A run that begins later than step 0 begins from
        what the inputs hold as `image`, with noise enough for that step.
    """

    seed: int
    layout: WindowLayout
    blocks: BlockGrid
    channels: int
    begin: int
    end: int

    def move(self, step: int) -> tuple[int, int]:
        return self.layout.move(step, np.random.default_rng(item_seed(self.seed, f"move/{step}")))

    def origin(self, step: int) -> tuple[int, int]:
        """Where the blocks' frame lies on the canvas before a step: row and column, latent px."""
        place = np.zeros(2, int)
        for earlier in range(self.begin, step):
            place += np.array(self.move(earlier)) + self.layout.inset(earlier)
        top, left = place % self.blocks.canvas
        return int(top), int(left)

    def strips(self, step: int) -> tuple[int, int]:
        """How many rows of the block below, and columns of the block beside it, a block reads at a step."""
        dy, dx = self.move(step)
        return dy + self.layout.reach(step), dx + self.layout.reach(step)

    def windows(self, step: int, number: int) -> Windows:
        """The windows of a block at a step."""
        block = self.blocks.block(number)
        rng = np.random.default_rng(item_seed(self.seed, f"windows/{step}/{number}"))
        return self.layout.windows(step, block.height, block.width, rng)

    def log(self) -> list[StepRecord]:
        """Where each step's region began on the canvas, its halo and its window: enough to find every border."""
        out = []
        for step in range(self.begin, self.end):
            top, left = (np.array(self.origin(step)) + self.move(step)) % self.blocks.canvas
            place, reach, inset = [int(top), int(left)], self.layout.reach(step), self.layout.inset(step)
            out.append(
                StepRecord(step=step, origin_latent_px=place, reach=reach, inset=inset, window=self.layout.window)
            )
        return out


class StepRecord(TypedDict):
    """A step as a slide's facts state it, latent px; `origin_latent_px` is row and column."""

    step: int
    origin_latent_px: list[int]
    reach: int
    inset: int
    window: int


def start_block(plan: CanvasPlan, number: int, denoiser: WindowDenoiser, inputs: CanvasInputs) -> torch.Tensor:
    """A block's state before the first step: noise, over what is fixed of it; or what the inputs hold as `start`."""
    block = plan.blocks.block(number)
    if (start := inputs.start(block)) is not None:
        return torch.cat([start, *[torch.zeros_like(start)] * denoiser.solver.history]).to(denoiser.device)
    step = denoiser.solver.steps[plan.begin]
    noise = torch.from_numpy(torus.noise_field(plan.seed, plan.channels, block, plan.blocks.canvas))
    region = inputs.region(block)
    x = step.noised(region.fixed, noise)
    if plan.begin == 0:
        x = torch.where(torch.from_numpy(region.free), step.pure(noise), x)
    return torch.cat([x, *[torch.zeros_like(x)] * denoiser.solver.history]).to(denoiser.device)


def advance_block(
    plan: CanvasPlan,
    number: int,
    step: int,
    parts: tuple[torch.Tensor, ...],
    denoiser: WindowDenoiser,
    inputs: CanvasInputs,
) -> torch.Tensor:
    """A block's state after a step.

    Parameters
    ----------
    parts : the block's own state, and the strips of the blocks right, below and at the corner.
    """
    own, right, down, corner = parts
    state = torch.cat([torch.cat([own, right], -1), torch.cat([down, corner], -1)], -2).to(denoiser.device)
    (dy, dx), reach, block = plan.move(step), plan.layout.reach(step), plan.blocks.block(number)
    height, width = block.height + reach, block.width + reach
    top, left = np.add(plan.origin(step), (block.top + dy, block.left + dx)) % plan.blocks.canvas
    region = inputs.region(PixelBox(int(left), int(top), width, height))
    state = state[:, dy : dy + height, dx : dx + width]
    known = denoiser.solver.known(step, plan.begin)
    out = step_region(state, plan.windows(step, number), step, region, denoiser, known)
    if (back := denoiser.solver.steps[step].back) is not None:
        top, left = np.add(plan.origin(step + 1), (block.top, block.left)) % plan.blocks.canvas
        place = PixelBox(int(left), int(top), block.width, block.height)
        noise = torus.noise_field(item_seed(plan.seed, f"back/{step}"), plan.channels, place, plan.blocks.canvas)
        kept, added = back
        out[: plan.channels] = kept * out[: plan.channels] + added * torch.from_numpy(noise).to(denoiser.device)
    return out
