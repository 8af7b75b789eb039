"""Members of a crew do one piece of work side by side, and send one another what the others wait for.

There is a member for each thread of each worker. The scheduler sees a task for each, and a box for each worker, however often they write to one another:
letters go from worker to worker, through actors of dask.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from histoloom.errors import HistoloomError
from histoloom.letters import Deserted, Letters
from histoloom.progress import progress
from histoloom.scheduler import wait_for_workers, words_for_what_died

_PATIENCE_S, _LOOK_EVERY_S, _RESTART_S = 2.0, 0.5, 30.0
"""How long a member waits for a letter before it asks whether its sender is still there; how often the crew is looked at; how long a lost worker may
take to come back."""


_LETTERS: WeakValueDictionary[str, Letters] = WeakValueDictionary()
"""Those of this process, by the run that they belong to: a member finds here what its worker's box was given."""


class Box:
    """The actor that takes letters in for the members of its worker."""

    def __init__(self, run: str) -> None:
        self._letters = _LETTERS[run] = Letters()

    async def put(self, key: Hashable, value: Any) -> None:  # by the worker's loop, which no thread need be woken for
        self._letters.put(key, value)

    def failed(self, rank: int) -> bool:
        return self._letters.failed(rank)

    def done(self) -> int:
        return self._letters.done

    def close(self) -> None:
        self._letters.close()


class Member:
    """One of a crew, as its own work sees it.

    rank : its number, from 0. count : of all members.
    """

    def __init__(self, rank: int, count: int, letters: Letters, boxes: dict[int, Any]):
        """`boxes` holds the actors of those members that are in other processes."""
        self.rank, self.count = rank, count
        self._letters, self._boxes = letters, boxes
        self._sent: list[tuple[Any, Any]] = []

    @classmethod
    def alone(cls) -> Member:
        """A crew of one, whose progress nobody asks for."""
        return cls(0, 1, Letters(), {})

    def advance(self, count: int = 1) -> None:
        """Tell that so much more is done."""
        self._letters.advance(count)

    def send(self, to: int, name: Hashable, value: Any) -> None:
        """Send a letter; it travels while its sender goes on. No two from one member to another have the same name.

        Raises
        ------
        Deserted
            when that member's worker is known to be lost.
        """
        key = (to, self.rank, name)
        if to not in self._boxes:
            self._letters.put(key, value)
            return
        with _deserted():
            self._sent.append((self._boxes[to], self._boxes[to].put(key, value)))

    def take(self, sender: int, name: Hashable) -> Any:
        """The letter of this name from another member, once it is there.

        Raises
        ------
        Deserted
            when that member is gone.
        """
        key = (self.rank, sender, name)
        while not (found := self._letters.take(key, _PATIENCE_S)):
            box = self._boxes.get(sender)
            with _deserted():
                gone = self._letters.failed(sender) if box is None else box.failed(sender).result(_RESTART_S)
            if gone:
                raise Deserted(f"member {sender} failed")
        return found[0]

    def finish(self) -> None:
        """Wait until all letters are where they belong.

        Raises
        ------
        Deserted
            when a worker that one is for is lost.
        """
        for box, letter in self._sent:
            with _deserted():
                while not _arrived(letter):
                    box.done().result(_RESTART_S)


def _arrived(letter: Any) -> bool:
    try:
        letter.result(_RESTART_S)
    except TimeoutError:
        return False
    return True


@contextmanager
def _deserted() -> Iterator[None]:
    """What dask raises where an actor's worker is gone, as `Deserted`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TimeoutError) as error:
        raise Deserted(str(error)) from error


Work = Callable[[Member], None]


def crew_here(work: Work, title: str, total: int) -> None:
    """A crew of one, in this process."""

    class Shown(Letters):
        def advance(self, count: int) -> None:
            show(count)

    with progress(title, total) as show:
        work(Member(0, 1, Shown(), {}))


def crew_of_dask(
    client: Any, scheduler: str | None, retries: int, work: Work, most: int, title: str, total: int
) -> None:
    """A crew of at most so many members on the workers of a client.

    When a worker is lost, all begin anew, on the workers that there are then; `retries` says how often.

    Raises
    ------
    HistoloomError
        when workers are lost too often, or the scheduler is.
    """
    for attempt in range(retries + 1):
        try:
            with words_for_what_died(scheduler, retries, title):
                _once(client, work, most, title, total)
            return
        except Deserted as error:
            if attempt == retries:
                raise HistoloomError(
                    f"A worker died {retries + 1} times in '{title}', most often for want of memory. Lower `workers` or the batch size, and run "
                    "again: what was committed is kept."
                ) from error
        wait_for_workers(client, scheduler)


def _once(client: Any, work: Work, most: int, title: str, total: int) -> None:
    workers = _workers(client)
    places = _places({address: known["nthreads"] for address, known in workers.items()}, most)
    if not places:
        raise Deserted("no worker is left")  # a crew of nobody would be done at once
    run, pinned = uuid.uuid4().hex[:8], {"pure": False, "allow_other_workers": False}
    boxes = [
        client.submit(Box, run, actor=True, key=f"box-{run}-{number}", workers=[place], **pinned)
        for number, place in enumerate(sorted(set(places)))
    ]
    members = [
        client.submit(_work, work, run, rank, places, *boxes, key=f"member-{run}-{rank}", workers=[place], **pinned)
        for rank, place in enumerate(places)
    ]
    try:
        with progress(title, total) as show:
            _watch(client, members, boxes, set(places), show)
    except Deserted:
        with suppress(TimeoutError):  # a nanny starts its worker anew
            client.wait_for_workers(len(workers), timeout=_RESTART_S)
        raise
    finally:
        if client.status == "running":
            for actor in _actors(boxes):
                with suppress(OSError, RuntimeError):  # its worker may be what was lost
                    actor.close()
            client.cancel([*members, *boxes])


def _watch(client: Any, members: list[Any], boxes: list[Any], places: set[str], show: Callable[[int], None]) -> None:
    """Return when all members are done, and show how far they are."""
    from distributed import wait

    shown = 0
    while True:
        waiting = [member for member in members if member.status == "pending"]
        if not places <= _workers(client).keys():  # before the errors that come of it
            raise Deserted("a worker was lost")
        _raise_worst(members)
        done = _done(boxes, shown)
        show(done - shown)
        shown = done
        if not waiting:
            return
        with suppress(TimeoutError):
            wait(waiting, timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")


def _actors(boxes: list[Any]) -> list[Any]:
    """Those that can be reached. A box is pinned to its worker: where that is lost, dask would wait for it for ever."""
    found = []
    for box in (box for box in boxes if box.status == "finished"):
        with suppress(Exception):  # whatever dask says of a lost worker
            found.append(box.result(_PATIENCE_S))
    return found


def _done(boxes: list[Any], otherwise: int) -> int:
    actors = _actors(boxes)
    if len(actors) < len(boxes):
        return otherwise
    try:
        return sum(answer.result(_RESTART_S) for answer in [actor.done() for actor in actors])
    except (OSError, RuntimeError, TimeoutError):
        return otherwise  # the next look finds the worker gone


def _raise_worst(members: list[Any]) -> None:
    """The error of a member that failed of itself, where one did: the others' are of its making."""
    from distributed import KilledWorker

    deserted: Exception | None = None
    for member in members:
        if member.status not in ("pending", "finished"):
            try:
                member.result()
            except (Deserted, KilledWorker) as error:
                deserted = error
    if deserted is not None:
        raise Deserted(str(deserted)) from deserted


def _workers(client: Any) -> dict[str, dict]:
    return client.scheduler_info(n_workers=-1)["workers"]


def _places(threads: dict[str, int], most: int) -> list[str]:
    """The worker of each member: neighbours in rank share one where they can, and few members are spread over many workers."""
    seats = sorted((seat, address) for address, count in threads.items() for seat in range(count))
    return sorted(address for _, address in seats[:most])


def _work(work: Work, run: str, rank: int, places: list[str], *boxes: Any) -> None:
    """A member's task. It leaves the worker's pool of threads, so that no other task has to wait for the crew."""
    from distributed import secede

    secede()
    by_place = dict(zip(sorted(set(places)), boxes))
    others = {number: by_place[place] for number, place in enumerate(places) if place != places[rank]}
    letters = _LETTERS.get(run)
    if letters is None:
        raise Deserted("the worker's box is gone")
    member, done = Member(rank, len(places), letters, others), False
    try:
        work(member)
        member.finish()
        done = True
    finally:
        if not done:
            letters.fail(rank)
