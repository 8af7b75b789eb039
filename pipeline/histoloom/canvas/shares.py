"""A canvas divided among the members of a crew: each advances its own blocks, and sends the others the strips that they read.

Nobody waits but for strips. What a member reads of another's blocks comes as one letter a step, sent as soon as the last of those blocks is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from histoloom.canvas.blocks import BlockGrid
from histoloom.crew import Member


class States(Protocol):
    """A block's number to its state, (..., height, width)."""

    def __getitem__(self, number: int, /) -> torch.Tensor: ...

    def __setitem__(self, number: int, state: torch.Tensor, /) -> None: ...


Advance = Callable[[int, int, tuple[torch.Tensor, ...]], torch.Tensor]
"""(block, step, its state and the strips right of it, below it and at the corner) to its state one step on."""
Strips = Callable[[int], tuple[int, int]]
"""How many rows and columns a block reads of its neighbours at a step."""
_KINDS = ("right", "down", "corner")
_Strip = tuple[int, str]
"""A block, and which strip of it."""


@dataclass(frozen=True)
class Share:
    """The blocks of one member: a run of numbers, so that most neighbours are its own.

    rank, count : as a `Member` has them.
    """

    blocks: BlockGrid
    rank: int
    count: int

    @property
    def numbers(self) -> range:
        first, after = (-(-rank * self.blocks.count // self.count) for rank in (self.rank, self.rank + 1))
        return range(first, after)

    def owner(self, number: int) -> int:
        """The rank of the member that has a block."""
        return number * self.count // self.blocks.count

    def strips_of(self, number: int) -> list[_Strip]:
        """What a block reads of its neighbours."""
        return [(neighbour, kind) for kind, neighbour in zip(_KINDS, self.blocks.after(number))]

    def reads(self) -> dict[int, list[_Strip]]:
        """Rank to what this member reads of that one's blocks, in the order of its letters."""
        found: dict[int, list[_Strip]] = {}
        for strip in (strip for number in self.numbers for strip in self.strips_of(number)):
            if (of := self.owner(strip[0])) != self.rank:
                found.setdefault(of, []).append(strip)
        return found

    def read_by_others(self) -> dict[int, list[_Strip]]:
        """Rank to what that member reads of this one's blocks, in the order of its letters."""
        others = (rank for rank in range(self.count) if rank != self.rank)
        found = {rank: Share(self.blocks, rank, self.count).reads().get(self.rank) for rank in others}
        return {rank: strips for rank, strips in found.items() if strips}


def advance_share(
    share: Share, strips: Strips, states: tuple[States, States], start: int, stop: int, advance: Advance, member: Member
) -> States:
    """Bring a member's blocks from one step to another.

    Parameters
    ----------
    states : the blocks' states before `start`, and room for those one step on; the two take turns.

    Returns
    -------
    The states before `stop`.
    """
    now, following = states
    reads, read = share.reads(), share.read_by_others()
    comes_from = {strip: of for of, wanted in reads.items() for strip in wanted}
    strips_of = {number: share.strips_of(number) for number in share.numbers}
    finishes: dict[int, list[int]] = {}
    for rank, wanted in read.items():
        finishes.setdefault(max(number for number, _ in wanted), []).append(rank)

    def send(to: int, step: int, of: States) -> None:
        size = strips(step)
        strips_of_it = [_cut(of[number], kind, *size).flatten() for number, kind in read[to]]
        member.send(to, step, torch.cat(strips_of_it).cpu().numpy())

    for rank in read:
        send(rank, start, now)
    for step in range(start, stop):
        down, right = strips(step)
        come: dict[_Strip, torch.Tensor] = {}
        for number in share.numbers:
            parts = [now[number]]
            for strip in strips_of[number]:
                of = comes_from.get(strip)
                if of is None:
                    parts.append(_cut(now[strip[0]], strip[1], down, right))
                    continue
                if strip not in come:
                    letter = member.take(of, step)
                    come |= _opened(letter, reads[of], share.blocks, parts[0], down, right)
                parts.append(come[strip])
            following[number] = advance(number, step, tuple(parts))
            if step + 1 < stop:
                for rank in finishes.get(number, ()):
                    send(rank, step + 1, following)
            member.advance()
        now, following = following, now
    return now


def _cut(state: torch.Tensor, kind: str, down: int, right: int) -> torch.Tensor:
    """The strip of a block that its neighbour reads: its left columns, its upper rows, or both."""
    rows = None if kind == "right" else down
    columns = None if kind == "down" else right
    return state[..., :rows, :columns]


def _opened(
    letter: np.ndarray, strips: list[_Strip], blocks: BlockGrid, like: torch.Tensor, down: int, right: int
) -> dict[_Strip, torch.Tensor]:
    """The strips that a letter holds, one after another, with the channels and on the device of `like`."""
    lead, sides = like.shape[:-2], [_sides(blocks, *strip, down, right) for strip in strips]
    parts = torch.from_numpy(letter).to(like.device).split([lead.numel() * height * width for height, width in sides])
    return {strip: part.reshape(*lead, *side) for strip, part, side in zip(strips, parts, sides)}


def _sides(blocks: BlockGrid, number: int, kind: str, down: int, right: int) -> tuple[int, int]:
    row, column = divmod(number, len(blocks.widths))
    return blocks.heights[row] if kind == "right" else down, blocks.widths[column] if kind == "down" else right
