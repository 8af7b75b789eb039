"""A crew: members that write to one another, wherever they are; and what a lost one costs."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom import crew
from histoloom.canvas.blocks import BlockGrid
from histoloom.canvas.shares import Share, advance_share
from histoloom.cluster import open_pool
from histoloom.config import Cluster
from histoloom.crew import Member
from histoloom.errors import HistoloomError
from histoloom.letters import Letters

pytestmark = pytest.mark.long


def pass_round(folder: Path, member: Member) -> None:
    """Each tells the next its number, three times, and writes down what it was told."""
    told = []
    for turn in range(3):
        member.send((member.rank + 1) % member.count, turn, np.full(3, member.rank))
        told.append(member.take((member.rank - 1) % member.count, turn))
        member.advance()
    np.save(folder / f"{member.rank}.npy", np.stack(told))


def die_once(mark: Path, folder: Path, member: Member) -> None:
    """The last one is killed the first time, as an out-of-memory killer would."""
    if member.rank == member.count - 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    pass_round(folder, member)


def die(member: Member) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(member: Member) -> None:
    """One fails, while the others wait for it."""
    if member.rank == 0:
        raise HistoloomError("the first has nothing to say")
    member.take(0, "word")


def told(folder: Path) -> list[int]:
    return [int(np.load(folder / f"{n}.npy")[0, 0]) for n in range(len(list(folder.glob("*.npy"))))]


@pytest.mark.parametrize("workers, most, told_to", [(0, 4, [0]), (1, 4, [0]), (2, 4, [1, 0]), (3, 2, [1, 0])])
def test_members_write_to_one_another(tmp_path, workers, most, told_to):
    with open_pool(Cluster(workers=workers), tasks=4) as pool:
        pool.crew(partial(pass_round, tmp_path), most, "round", 3 * len(told_to))
    assert told(tmp_path) == told_to


def test_a_worker_of_two_threads_has_two_members(tmp_path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        open_pool(Cluster(scheduler=cluster.scheduler_address), tasks=9) as pool,
    ):
        pool.crew(partial(pass_round, tmp_path), 9, "round", 12)
    assert told(tmp_path) == [3, 0, 1, 2]


def test_when_a_member_is_lost_all_begin_anew(tmp_path):
    for workers in (1, 2):
        (made := tmp_path / str(workers)).mkdir()
        with open_pool(Cluster(workers=workers), tasks=2) as pool:
            pool.crew(partial(die_once, tmp_path / f"died-{workers}", made), 2, "round", 6)
        assert sorted(told(made)) in ([0], [0, 1]) and (tmp_path / f"died-{workers}").exists()


def test_a_crew_of_nobody_is_not_done(tmp_path, monkeypatch):
    """Where all workers are lost for a moment, the work waits for others, and is not taken for done."""
    real, asked = crew._workers, []

    def none_at_first(client):
        asked.append(1)
        return {} if len(asked) == 1 else real(client)

    monkeypatch.setattr(crew, "_workers", none_at_first)
    with open_pool(Cluster(workers=1), tasks=1) as pool:
        pool.crew(partial(pass_round, tmp_path), 1, "round", 3)
    assert told(tmp_path) == [0]


class _Lost:
    """The future of a box whose worker is gone: dask waits for another, which can't come."""

    status = "finished"

    def result(self, timeout: float | None = None):
        assert timeout is not None, "it would wait for ever"
        raise TimeoutError


def test_a_box_that_can_t_be_reached_is_not_waited_for():
    assert crew._actors([_Lost()]) == [] and crew._done([_Lost()], 7) == 7


def test_a_crew_that_always_dies_is_an_error_that_says_so():
    with (
        pytest.raises(HistoloomError, match="worker died 2 times"),
        open_pool(Cluster(workers=1, retries=1), tasks=1) as pool,
    ):
        pool.crew(die, 1, "die", 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_error_of_one_arrives_and_not_that_of_those_who_waited(workers):
    with (
        pytest.raises(HistoloomError, match="the first has nothing to say"),
        open_pool(Cluster(workers=workers), tasks=2) as pool,
    ):
        pool.crew(complain, 2, "complain", 1)


def _threads(count: int, work) -> None:
    """A crew of threads of this process."""
    letters = Letters()
    members = [threading.Thread(target=work, args=(Member(n, count, letters, {}),)) for n in range(count)]
    for member in members:
        member.start()
    for member in members:
        member.join()


@given(st.integers(1, 4), st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=30)
def test_any_number_of_members_reads_the_same_strips(rows, columns, data):
    blocks = BlockGrid((2,) * rows, (3,) * columns)
    count = data.draw(st.integers(1, blocks.count))
    late = data.draw(st.integers(0, blocks.count - 1))

    def advance(number: int, step: int, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if number == late:
            time.sleep(0.001)
        own, right, down, corner = parts
        assert (right.shape, down.shape, corner.shape) == ((1, 2, 2), (1, 1, 3), (1, 1, 2))
        return own * 3 + right[..., :1, :1] * 5 + down.sum() * 7 + corner.sum() * 11 + number + step

    def made(count: int) -> torch.Tensor:
        found: dict[int, torch.Tensor] = {}

        def work(member: Member) -> None:
            share = Share(blocks, member.rank, member.count)
            assert all(share.owner(n) == member.rank for n in share.numbers)
            begun = {n: torch.full((1, 2, 3), n) for n in share.numbers}
            made = advance_share(share, lambda step: (1, 2), (begun, {}), 0, 3, advance, member)
            found.update({n: made[n] for n in share.numbers})

        _threads(count, work)
        return torch.stack([found[n] for n in range(blocks.count)])

    assert torch.equal(made(count), made(1))
