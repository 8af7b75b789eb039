"""What members of a crew take to exchange the strips of a canvas, whose steps have no work."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from distributed import Client

from benchmarks.run import seconds
from histoloom.canvas.blocks import BlockGrid
from histoloom.canvas.shares import Share, advance_share
from histoloom.cluster import open_pool
from histoloom.config import Cluster
from histoloom.crew import Member


def _exchange(blocks: BlockGrid, side: int, strips: tuple[int, int], steps: int, times: Path, member: Member) -> None:
    """Steps without work of a member's blocks, whose states have `side` px; how long it took is written down."""
    share = Share(blocks, member.rank, member.count)
    begun = {number: torch.zeros(4, side, side) for number in share.numbers}

    def work(start: int, stop: int) -> None:
        room = (begun, dict(begun))
        advance_share(share, lambda step: strips, room, start, stop, lambda n, step, parts: parts[0], member)

    work(0, 2)
    took = seconds(lambda: work(2, 2 + steps)).wall
    (times / f"{member.rank}").write_text(str(took), encoding="ascii")


def measure_exchange(root: Path, workers: int, side: int) -> dict:
    """What steps cost beside their work, on more workers than there may be cores: with strips of nothing, and with wide ones."""
    steps, found = 100, {}
    blocks, few = BlockGrid((256,) * side, (256,) * side), BlockGrid((512,) * workers, (512,) * 2)
    for name, grid, px, strips in (("empty", blocks, 0, (0, 0)), ("wide", few, 512, (256, 256))):
        folder = root / f"exchange-{name}"
        folder.mkdir()
        sending = patch.object(Client, "submit", autospec=True, side_effect=Client.submit)
        with open_pool(Cluster(workers=workers), tasks=grid.count) as pool, sending as sent:
            pool.crew(partial(_exchange, grid, px, strips, steps, folder), workers, name, grid.count * (steps + 2))
        found[name] = max(float(path.read_text(encoding="ascii")) for path in folder.iterdir()) / steps
    shares = [Share(few, rank, workers) for rank in range(workers)]
    moved = sum(
        4 * 4 * {"right": 512 * 256, "down": 256 * 512, "corner": 256 * 256}[kind]
        for share in shares
        for wanted in share.read_by_others().values()
        for _, kind in wanted
    )
    return {
        "exchange.workers": workers,
        "exchange.blocks": blocks.count,
        "scheduler_tasks_per_segment": sent.call_count,
        "ms_per_step_without_compute": 1000 * found["empty"],
        "strip_mb_per_s": moved / 1e6 / found["wide"],
    }
