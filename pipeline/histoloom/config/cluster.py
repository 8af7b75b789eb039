"""cluster.yaml: how a machine runs the work. No stage depends on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from histoloom.config.base import Natural, Positive, Section

_PROTOCOLS = ("tcp", "tls", "ws", "wss", "ucx")
"""What dask's schedulers speak."""


def _address(stated: Any) -> Any:
    """A scheduler's address with its protocol, tcp where it states none; null is none."""
    if stated is None:
        return None
    text = str(stated)
    address = text if "://" in text else f"tcp://{text}"
    try:
        parts = urlsplit(address)
        whole = parts.scheme == "inproc" or (parts.scheme in _PROTOCOLS and parts.hostname and parts.port)
    except ValueError:
        whole = False
    if not whole or address.split() != [address]:
        raise ValueError(f"'{text}' is no scheduler's address: write PROTOCOL://HOST:PORT, as in tcp://host:8786")
    return address


class Cluster(Section):
    """How this machine runs the work. Changing it reruns nothing."""

    workers: Natural | Literal["auto"] = "auto"
    """processes; auto is one per core that the process may use, or per GPU; 0 is in-process"""
    memory_limit: str = Field("auto", pattern=r"(?i)^(auto|\d+(\.\d+)?(e\d+)?\s*([kmgtp]i?)?b?)$")
    """of a worker, such as 4 GiB; auto shares"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    scheduler: Annotated[str | None, BeforeValidator(_address)] = None
    """address of an existing dask scheduler, tcp://host:8786 or tls://host:8786"""
    training_threads: Positive | Literal["auto"] = "auto"
    training_processes: Positive | Literal["auto"] = "auto"
    """that share one training, each with a GPU, or with training_threads on a CPU; auto is as many as there are GPUs, of which each batch takes equal parts"""
    retries: Natural = Field(2, description="times a task whose worker died is tried again")
