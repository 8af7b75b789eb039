"""Slides in an S3 store and at https: real servers on this machine, which moto and the standard library run."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import fsspec
import pytest
import trustme
from moto.server import ThreadedMotoServer

from histoloom.data import remote
from histoloom.data.remote import CannotFetch, fetch
from histoloom.data.store import TileStore
from tests.build import make_slide
from tests.studies.tiling import slide_row, study, tile_slides

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(server, folder, monkeypatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The server's file system, empty but for a bucket, `slides`; the environment names the server and a key."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "_ASK_AGAIN_S", 0.0)
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("slides")
    yield store
    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    type(store).clear_instance_cache()  # it holds the key


def test_a_study_cuts_slides_of_a_bucket_and_again_only_what_changed_there(bucket):
    for number in range(3):
        make_slide(f"local/{number}.svs", width=128, height=128, seed=number)
        bucket.put(f"local/{number}.svs", f"slides/deep/a {number}.svs")
    rows = [slide_row(number, path=f"a {number}.svs") for number in range(3)]
    config = study(rows, {"slides_root": "s3://slides/deep"}).tile
    assert tile_slides(config)["slides_made"] == 3
    assert {*TileStore("data/tiles").rows()["slide_id"]} == {"s0", "s1", "s2"}
    assert tile_slides(config)["slides_made"] == 0
    make_slide("local/1.svs", width=128, height=128, seed=9)
    bucket.put("local/1.svs", "slides/deep/a 1.svs")
    assert tile_slides(config)["slides_made"] == 1


def test_all_files_of_a_slide_come_from_a_bucket_and_what_is_not_there_is_said(bucket):
    for name in ("m.mrxs", "m/Data0.dat", "m/deep/x.dat"):
        bucket.pipe(f"slides/{name}", name.encode())
    path = fetch("s3://slides/m.mrxs", Path("cache"))
    assert (path.parent / "m/deep/x.dat").read_bytes() == b"m/deep/x.dat"
    for address, words in {
        "s3://slides/none.svs": "there is no file 's3://slides/none.svs'",
        "s3://other/none.svs": "there is no file 's3://other/none.svs'",
        "s3://slides/m": "'s3://slides/m' is a folder",
    }.items():
        with pytest.raises(CannotFetch, match=words) as caught:
            fetch(address, Path("cache"))
        assert caught.value.gone


def test_a_key_that_is_missing_is_said_with_the_address_and_what_to_set(bucket, folder, monkeypatch):
    bucket.pipe("slides/a.svs", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))  # which may hold a key
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(
        CannotFetch, match=r"'s3://slides/a\.svs' can't be reached \(Unable to locate credentials\)"
    ) as caught:
        fetch("s3://slides/a.svs", Path("cache"))
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in caught.value.remedy and not caught.value.gone


@pytest.mark.parametrize("trusted", [False, True])
def test_a_server_with_an_authority_of_its_own_is_read_if_it_is_trusted(folder, trusted):
    (folder / "there").mkdir()
    (folder / "there/a.svs").write_bytes(b"x" * 5000)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "there"))
    code = (
        "from pathlib import Path; from histoloom.data.remote import CannotFetch, fetch\n"
        "try: print(len(fetch('https://127.0.0.1:{}/a.svs', Path('cache')).read_bytes()))\n"
        "except CannotFetch as error: print(error, error.remedy)"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        more = {"SSL_CERT_FILE": str(folder / "authority.pem")} if trusted else {}
        command = [sys.executable, "-c", code.format(server.server_port)]
        done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=True)
        server.shutdown()
    if trusted:
        assert done.stdout == "5000\n"
    else:
        assert f"'https://127.0.0.1:{server.server_port}/a.svs' can't be reached" in done.stdout
        assert "SSL_CERT_FILE" in done.stdout
        assert not [path for path in Path("cache").rglob("*") if path.is_file()]
