"""The scheduler that cluster.yaml names: reached within seconds, or an error in words; so is what is lost later."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from histoloom.errors import HistoloomError

T = TypeVar("T")
REACHED_WITHIN_S = 10
_UNREACHED = (OSError, TypeError, ValueError, RuntimeError, ImportError, AssertionError, UnboundLocalError)
"""What dask raises where it reaches no scheduler: of no answer, of lacking certificates, of an address, of a protocol; the last by a
slip of its own, once its time is over."""
_OF_THE_USER = "mend 'scheduler' in cluster.yaml, or set scheduler: null to run on this machine."


@contextmanager
def reach(address: str) -> Iterator:
    """Yield a client of the scheduler at an address.

    Raises
    ------
    HistoloomError
        when nothing answers there, what answers is no scheduler, or it or a worker has other versions.
    """
    from distributed import Client

    try:
        with _quiet():
            client = _within(2 * REACHED_WITHIN_S, lambda: Client(address, timeout=REACHED_WITHIN_S))
    except _UNREACHED as first:
        error = _refusal(address) or first
        raise HistoloomError(
            f"The scheduler {address} could not be reached within {REACHED_WITHIN_S} s ({_innermost(error)}). Start it; or "
            f"{_OF_THE_USER}{_about_tls(address, error)}"
        ) from first
    with client:
        yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what tornado logs, traceback and all, of a web server that speaks no WebSocket; the error says it."""
    logger = logging.getLogger("tornado.application")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _refusal(address: str) -> OSError | None:
    """Why no connection is made to an address, if none is: dask may be out of time before it says so."""
    place = urlsplit(address)
    if not (place.hostname and place.port):
        return None
    try:
        socket.create_connection((place.hostname, place.port), timeout=REACHED_WITHIN_S).close()
    except OSError as error:
        return error
    return None


def _within(seconds: float, call: Callable[[], T]) -> T:
    """A call's result; its own timeout doesn't end dask's talk with what is no scheduler.

    Raises
    ------
    TimeoutError
        when it takes longer: the call then goes on in a thread that ends with the process.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except _UNREACHED as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result.result(timeout=seconds)


def wait_for_workers(client, address: str | None) -> None:
    """Return when a worker is there.

    Raises
    ------
    HistoloomError
        when none joins within a minute.
    """
    try:
        client.wait_for_workers(1, timeout=60)
    except TimeoutError:
        raise HistoloomError(
            f"No worker joined the scheduler {address or 'of this machine'} within a minute. Start workers, or {_OF_THE_USER}"
        ) from None


def check_versions(client, address: str) -> None:
    """Refuse a scheduler, or workers, whose versions are other than this process's.

    Raises
    ------
    HistoloomError
        naming each that differs: tasks travel as pickles, which another version may not read.
    """
    found = client.get_versions(check=False, packages=["histoloom"])
    here = _stated(found["client"])
    others = {f"the scheduler {address}": found["scheduler"]} | {f"worker {k}": v for k, v in found["workers"].items()}
    wrong = [
        f"{where} has {name} {there.get(name) or 'not at all'}, and this process {version}"
        for where, there in ((where, _stated(said)) for where, said in others.items())
        for name, version in here.items()
        if there.get(name) != version
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise HistoloomError(
            f"Versions differ: {'; '.join(wrong[:3])}{more}. Start scheduler and workers in this environment, and in the "
            "study's folder."
        )


def _stated(said: dict) -> dict[str, str | None]:
    packages = dict(said["packages"])
    kept = {name: packages.get(name) for name in ("dask", "distributed", "histoloom")}
    return kept | {"python": ".".join(packages["python"].split(".")[:2])}


@contextmanager
def words_for_what_died(address: str | None, retries: int, title: str) -> Iterator[None]:
    """Say in words that a worker died once too often, or that the scheduler went away.

    Raises
    ------
    HistoloomError
        in place of dask's own error.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError, FuturesCancelledError
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise HistoloomError(
            f"A worker died {retries + 1} times at one task of '{title}', most often for want "
            "of memory. Lower `workers` or the batch size, and run again: committed parts are kept."
        ) from error
    except (FutureCancelledError, FuturesCancelledError, CommClosedError) as error:
        raise HistoloomError(
            f"The scheduler {address or 'of this machine'} was lost during '{title}' ({_innermost(error)}). Start it, and run "
            "again: committed parts are kept."
        ) from error


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _innermost(error: BaseException) -> str:
    """What the first cause says, in one line."""
    cause = _cause(error)
    return " ".join(str(cause).split()) or "what is there doesn't answer as a scheduler does"


def _about_tls(address: str, error: BaseException) -> str:
    if address.startswith("tls://"):
        return " For tls:// dask's configuration must name the certificates (docs: Scale out)."
    if isinstance(_cause(error), (ConnectionRefusedError, socket.gaierror)):
        return ""
    return " If it speaks tls, write tls:// (docs: Scale out)."
