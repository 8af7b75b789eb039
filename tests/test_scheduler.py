"""A scheduler of the user's: what it costs when it isn't there, isn't one, speaks tls, or dies; and who can reach our own."""

from __future__ import annotations

import http.server
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import LocalCluster, Security
from distributed.worker_memory import parse_memory_limit

from histoloom.cluster import open_pool
from histoloom.config import Cluster, load_cluster
from histoloom.crew import Member
from histoloom.errors import HistoloomError
from histoloom.scheduler import check_versions

pytestmark = pytest.mark.long


def double(value: int) -> int:
    return 2 * value


def wait_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_with_others(member: Member) -> None:
    time.sleep(60)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("histoloom.scheduler.REACHED_WITHIN_S", 3)


def _open(address: str) -> None:
    with open_pool(Cluster(scheduler=address), tasks=1) as run:
        run(double, [1], "double")


def _listening(_: int) -> list[str]:
    """The addresses that this process listens on."""
    found = psutil.Process(os.getpid()).net_connections(kind="inet")
    return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN]


def test_a_cluster_of_this_machine_listens_on_loopback_alone():
    own = set(_listening(0))
    with open_pool(Cluster(workers=2), tasks=2) as run:
        here = psutil.Process(os.getpid())
        of_tree = [c for p in (here, *here.children(recursive=True)) for c in p.net_connections(kind="inet")]
        listened = {c.laddr.ip for c in of_tree if c.status == psutil.CONN_LISTEN}
        assert run(_listening, [0], "listen")[0], "the workers listen for one another"
    assert listened - own == {"127.0.0.1"}


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "8786",
        "tcp://host",
        "http://host:8786",
        "tcp://:8786",
        "tcp://host:99999",
        "tcp://host:x",
        "",
        "a b:1",
    ],
)
def test_what_is_no_address_is_a_fault_of_cluster_yaml(folder, text):
    Path("cluster.yaml").write_text(f"scheduler: '{text}'\n")
    with pytest.raises(HistoloomError, match=r"scheduler: .* is no scheduler's address: write PROTOCOL://HOST:PORT"):
        load_cluster()


def test_a_port_alone_is_no_address_and_quotes_are_not_the_remedy(folder):
    Path("cluster.yaml").write_text("scheduler: 8786\n")
    with pytest.raises(HistoloomError, match="scheduler: '8786' is no scheduler's address") as error:
        load_cluster()
    assert "quotes" not in str(error.value)


@pytest.mark.parametrize("stated", ["workers: -1", "memory_limit: 4 gigs", "memory_limit: half", "training_threads: 0"])
def test_what_dask_or_torch_would_refuse_is_a_fault_of_cluster_yaml(folder, stated):
    Path("cluster.yaml").write_text(f"{stated}\n")
    with pytest.raises(HistoloomError, match=stated.split(":")[0]):
        load_cluster()


@pytest.mark.parametrize("limit", ["auto", "4GiB", "4 GB", "4e9", "512MB", "0.5 gib"])
def test_memory_as_dask_reads_it_holds(limit):
    assert parse_memory_limit(Cluster(memory_limit=limit).memory_limit, 1, 1, logger=logging.getLogger())


@pytest.mark.parametrize(
    "text, address",
    [("host:8786", "tcp://host:8786"), ("tls://host:1", "tls://host:1"), ("tcp://[::1]:8786", "tcp://[::1]:8786")],
)
def test_an_address_without_a_protocol_is_tcp_s(text, address):
    assert Cluster(scheduler=text).scheduler == address


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://nohost.invalid:8786", "tls://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_said_within_seconds(quick, address):
    begun = time.monotonic()
    with pytest.raises(HistoloomError, match=f"The scheduler {address} could not be reached"):
        _open(address)
    assert time.monotonic() - begun < 10


def test_a_refused_port_is_said_even_where_dask_was_out_of_time(monkeypatch):
    monkeypatch.setattr("histoloom.scheduler.REACHED_WITHIN_S", 1e-3)
    with pytest.raises(HistoloomError, match="Connection refused"):
        _open("tcp://127.0.0.1:9")


_REACH = """
import sys
import histoloom.scheduler
from histoloom.config import Cluster
from histoloom.cluster import open_pool
from histoloom.errors import HistoloomError
histoloom.scheduler.REACHED_WITHIN_S = 2
def main():
    with open_pool(Cluster(scheduler=sys.argv[1]), tasks=1) as pool:
        pool(abs, [1], "abs")
try:
    main()
except HistoloomError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("protocol", ["tcp", "ws"])
def test_a_web_server_is_no_scheduler_and_the_process_ends(protocol):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"{protocol}://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", _REACH, address], capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        server.shutdown()
        server.server_close()
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "could not be reached" in said and "Traceback" not in said, said


@pytest.fixture
def tls(tmp_path) -> dict:
    """What dask's configuration states for tls, with certificates that are made here."""
    made = Security.temporary()
    for name in ("tls_ca_file", "tls_client_cert", "tls_client_key"):
        (tmp_path / name).write_text(getattr(made, name))
    stated = {"distributed.comm.tls.ca-file": str(tmp_path / "tls_ca_file")}
    for role in ("client", "scheduler", "worker"):
        stated[f"distributed.comm.tls.{role}.cert"] = str(tmp_path / "tls_client_cert")
        stated[f"distributed.comm.tls.{role}.key"] = str(tmp_path / "tls_client_key")
    return stated


def test_a_scheduler_that_speaks_tls_is_used_with_its_certificates_alone(quick, tls):
    with dask.config.set(tls):
        cluster = LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, protocol="tls://", host="127.0.0.1"
        )
    with cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        with dask.config.set(tls), open_pool(Cluster(scheduler=address), tasks=3) as run:
            assert run(double, [1, 2, 3], "double") == [2, 4, 6]
        with pytest.raises(HistoloomError, match="dask's configuration must name the certificates"):
            _open(address)
        with pytest.raises(HistoloomError, match="If it speaks tls, write tls://"):
            _open(address.replace("tls://", "tcp://"))


class _Versions:
    """A client whose scheduler and workers say what they are told to."""

    def __init__(self, scheduler: dict, worker: dict):
        here = {"python": "3.11.7.final.0", "dask": "2026.8.0", "distributed": "2026.8.0", "histoloom": "0.1.0"}
        said = (here, here | scheduler, here | worker)
        self.said = dict(zip(("client", "scheduler", "worker"), ({"packages": packages} for packages in said)))

    def get_versions(self, check, packages):
        return {k: self.said[k] for k in ("client", "scheduler")} | {"workers": {"tcp://w:1": self.said["worker"]}}


@pytest.mark.parametrize(
    "scheduler, worker, said",
    [
        (
            {"distributed": "2024.1.0"},
            {},
            "the scheduler tcp://s:1 has distributed 2024.1.0, and this process 2026.8.0",
        ),
        ({}, {"histoloom": None}, "worker tcp://w:1 has histoloom not at all, and this process 0.1.0"),
        ({}, {"python": "3.12.1.final.0"}, "worker tcp://w:1 has python 3.12, and this process 3.11"),
    ],
)
def test_other_versions_are_refused_by_name(scheduler, worker, said):
    with pytest.raises(HistoloomError, match=said):
        check_versions(_Versions(scheduler, worker), "tcp://s:1")
    check_versions(_Versions({"python": "3.11.9.final.0"}, {}), "tcp://s:1")


_CLUSTER = """
import os, sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
        os._exit(1)
"""


@pytest.mark.parametrize("crew", [False, True])
def test_a_scheduler_that_dies_in_the_middle_is_said(quick, tmp_path, crew):
    script = tmp_path / "cluster.py"
    script.write_text(_CLUSTER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    tasks_are_here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(script)], env=tasks_are_here, **pipes) as process:
        address = process.stdout.readline().strip()
        threading.Timer(3, process.communicate, ["\n"]).start()
        with (
            pytest.raises(HistoloomError, match=f"The scheduler {address} was lost during 'wait'"),
            open_pool(Cluster(scheduler=address), tasks=1) as run,
        ):
            if crew:
                run.crew(wait_with_others, 1, "wait", 1)
            else:
                run(wait_for, [60], "wait")
