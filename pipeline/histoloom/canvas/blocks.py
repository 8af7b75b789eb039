"""A canvas as fixed blocks: each advanced by one task a step, told of its neighbours by strips alone.

Blocks never change their size, whoever works on them. A block's state lies in a file on the disk of the worker that
made it, so that memory holds one block and its strips; what travels are the strips right of a block, below it and at
that corner. Every few steps the states are committed to the study's work folder, and the next steps begin from there:
a worker that is lost, or a run that is killed, costs what was done since.
"""

from __future__ import annotations

import errno
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoloom.canvas import torus
from histoloom.canvas.step import Denoiser, step_region
from histoloom.canvas.window_layouts import Cover, Windows
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError


@dataclass(frozen=True)
class Layout:
    """heights, widths : of the rows and columns of blocks, latent px."""

    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def canvas(self) -> tuple[int, int]:
        return sum(self.heights), sum(self.widths)

    @property
    def count(self) -> int:
        return len(self.heights) * len(self.widths)

    def block(self, number: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) in the blocks' own frame."""
        row, column = divmod(number, len(self.widths))
        return sum(self.heights[:row]), sum(self.widths[:column]), self.heights[row], self.widths[column]

    def after(self, number: int) -> tuple[int, int, int]:
        """The blocks right of this one, below it, and at that corner."""
        row, column = divmod(number, len(self.widths))
        down, right = (row + 1) % len(self.heights), (column + 1) % len(self.widths)
        n = len(self.widths)
        return row * n + right, down * n + column, down * n + right


def lay_out(height: int, width: int, cell: int, block: int, window: int) -> Layout:
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

    return Layout(spans(height), spans(width))


@dataclass(frozen=True)
class Held:
    """A state in a file of this process's own; it goes when nobody holds it. Sent elsewhere, it is written there."""

    path: Path

    @classmethod
    def of(cls, folder: Path, state: np.ndarray) -> Held:
        folder.mkdir(parents=True, exist_ok=True)
        held = cls(folder / f"{uuid.uuid4().hex}.npy")
        try:
            np.save(held.path, state)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise HistoloomError(
                f"The disk that holds {folder} is full; the canvas is kept as it was last committed. Make room and run "
                "the same command again: it goes on from there."
            ) from error
        return held

    def state(self) -> np.ndarray:
        return np.load(self.path)

    def part(self, height: int | None, width: int | None) -> np.ndarray:
        """The upper left part."""
        return np.array(np.load(self.path, mmap_mode="r")[:, :height, :width])

    def __reduce__(self):
        return Held.of, (self.path.parent, self.state())

    def __del__(self):
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Weave:
    """The steps of one canvas.

    begin, end : the first step that is run, and the number of steps. A run that begins later than step 0 begins from
        what the surroundings hold as `image`, with noise enough for that step.
    """

    seed: int
    cover: Cover
    layout: Layout
    channels: int
    begin: int
    end: int

    def move(self, step: int) -> tuple[int, int]:
        return self.cover.move(step, np.random.default_rng(item_seed(self.seed, f"move/{step}")))

    def origin(self, step: int) -> tuple[int, int]:
        """Where the blocks' frame lies on the canvas before a step."""
        place = np.zeros(2, int)
        for earlier in range(self.begin, step):
            place += np.array(self.move(earlier)) + self.cover.inset(earlier)
        return tuple(int(v) for v in place % self.layout.canvas)

    def strips(self, step: int) -> tuple[int, int]:
        """How many rows of the block below, and columns of the block beside it, a block reads at a step."""
        dy, dx = self.move(step)
        return dy + self.cover.reach(step), dx + self.cover.reach(step)

    def windows(self, step: int, number: int) -> Windows:
        """The windows of a block at a step."""
        _, _, height, width = self.layout.block(number)
        rng = np.random.default_rng(item_seed(self.seed, f"windows/{step}/{number}"))
        return self.cover.windows(step, height, width, rng)

    def log(self) -> list[dict]:
        """Where each step's region began on the canvas, its halo and its window: enough to find every border."""
        out = []
        for step in range(self.begin, self.end):
            place = (np.array(self.origin(step)) + self.move(step)) % self.layout.canvas
            facts = {"reach": self.cover.reach(step), "inset": self.cover.inset(step), "window": self.cover.window}
            out.append({"step": step, "origin_latent_px": [int(v) for v in place], **facts})
        return out


def start_block(weave: Weave, number: int, denoiser: Denoiser, surroundings) -> np.ndarray:
    """A block's state before the first step: noise, over what is fixed of it."""
    top, left, height, width = weave.layout.block(number)
    step, first = denoiser.solver.steps[weave.begin], weave.begin == 0
    noise = torus.noise_field(weave.seed, weave.channels, top, left, height, width, weave.layout.canvas)
    box = surroundings.box(top, left, height, width)
    x = step.noised(box.fixed, noise)
    if first:
        x[:, box.free] = noise[:, box.free] * (1.0 if step.scale == 1 else step.sigma / step.scale)
    x = x.astype(np.float32)
    return np.concatenate([x, np.zeros_like(x)]) if denoiser.solver.history else x


def advance_block(
    weave: Weave, number: int, step: int, parts: tuple[np.ndarray, ...], denoiser: Denoiser, surroundings
) -> np.ndarray:
    """A block's state after a step.

    Parameters
    ----------
    parts : the block's own state, and the strips of the blocks right, below and at the corner.
    """
    own, right, down, corner = parts
    state = np.concatenate([np.concatenate([own, right], 2), np.concatenate([down, corner], 2)], 1)
    (dy, dx), reach, inset = weave.move(step), weave.cover.reach(step), weave.cover.inset(step)
    height, width = own.shape[1:]
    region = state[:, dy : dy + height + reach, dx : dx + width + reach]
    top, left, _, _ = weave.layout.block(number)
    place = np.add(weave.origin(step), (top + dy, left + dx)) % weave.layout.canvas
    around = surroundings.box(int(place[0]), int(place[1]), height + reach, width + reach)
    windows = weave.windows(step, number)
    taken = denoiser.solver.steps
    first = (
        step == weave.begin or taken[step - 1].back is not None
    )  # noise was added: what was predicted before is void
    out = step_region(region, windows, inset, (height, width), step, first, around, denoiser)
    if taken[step].back is not None:
        place = np.add(weave.origin(step + 1), (top, left)) % weave.layout.canvas
        seed = item_seed(weave.seed, f"back/{step}")
        noise = torus.noise_field(seed, weave.channels, *map(int, place), height, width, weave.layout.canvas)
        kept, added = taken[step].back
        out[: weave.channels] = np.float32(kept) * out[: weave.channels] + np.float32(added) * noise
    return out
