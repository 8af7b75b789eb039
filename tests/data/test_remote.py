"""Files at addresses: copied whole, kept, and copied again where they changed. The web server is a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from histoloom.config import Params
from histoloom.data import remote
from histoloom.data.remote import CannotFetch, fetch
from histoloom.data.slide_files import NoFile, Root
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.studies.named_files import files_of
from tests.build import make_slide
from tests.dicom_slides import make_dicom_slide
from tests.studies.tiling import slide_row, slides_report, study, tile_slides


class _Handler(SimpleHTTPRequestHandler):
    """A server that counts what is asked, and can break off, or state no size."""

    asked: list[str]
    cut_to: int | None = None
    without_size = False

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(f"GET {self.path}")
        super().do_GET()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read() if self.cut_to is None else source.read(self.cut_to))

    def send_header(self, keyword, value):
        if not (self.without_size and keyword == "Content-Length"):
            super().send_header(keyword, value)


@pytest.fixture
def server(folder) -> Iterator[type[_Handler]]:
    """Serves the folder `there` at loopback; `address` is its own."""
    (folder / "there").mkdir()
    handler = type("Handler", (_Handler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder / "there"))) as running:
        handler.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        handler.stop = lambda: (running.shutdown(), running.server_close())
        yield handler
        running.shutdown()


@pytest.fixture(autouse=True)
def _asks_each_time(monkeypatch):
    monkeypatch.setattr(remote, "_ASK_AGAIN_S", 0.0)


def test_a_study_cuts_slides_of_a_web_server_and_again_only_what_changed_there(server):
    for number in range(3):
        make_slide(f"there/deep/s {number}.svs", width=128, height=128, seed=number)
    rows = [slide_row(number, path=f"s {number}.svs") for number in range(3)]
    rows[2]["path"] = f"{server.address}/deep/s%202.svs"
    config = study(rows, {"slides_root": f"{server.address}/deep"}).tile
    held = files_of(Study(), "tile")["tile"]["slides"]
    assert tile_slides(config)["slides_made"] == 3 and len(server.asked) == 3
    assert {*TileStore("data/tiles").rows()["slide_id"]} == {"s0", "s1", "s2"}
    assert {row["mpp_level0"] for row in slides_report().values()} == {"1.0"}
    assert tile_slides(config)["slides_made"] == 0 and len(server.asked) == 3
    assert files_of(Study(), "tile")["tile"]["slides"] == held
    make_slide("there/deep/s 1.svs", width=128, height=128, seed=9)
    _later("there/deep/s 1.svs")
    assert files_of(Study(), "tile")["tile"]["slides"] != held  # `dvc repro` runs the stage again
    assert tile_slides(config)["slides_made"] == 1 and len(server.asked) == 4


def _later(path) -> None:
    """Servers state times in seconds."""
    found = Path(path).stat()
    os.utime(path, (found.st_atime + 5, found.st_mtime + 5))


@pytest.mark.parametrize("way", ["broken off", "no size", "gone", "no server"])
def test_what_is_not_whole_is_never_taken_and_leaves_nothing(server, way):
    Path("there/a.svs").write_bytes(b"x" * 5000)
    address = f"{server.address}/{'b' if way == 'gone' else 'a'}.svs"
    if way == "broken off":
        server.cut_to = 1000
    server.without_size = way == "no size"
    if way == "no server":
        server.stop()
        address = "http://127.0.0.1:9/a.svs"
    words = {"gone": "there is no file", "no size": "states no size"}.get(way, "can't be reached|broke off")
    with pytest.raises(CannotFetch, match=words):
        fetch(address, Path("cache"))
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]
    if way == "broken off":
        server.cut_to = None
        assert fetch(address, Path("cache")).read_bytes() == b"x" * 5000


def test_a_copy_that_was_touched_or_has_no_record_is_made_again(server):
    Path("there/a.svs").write_bytes(b"right")
    path = fetch(f"{server.address}/a.svs", Path("cache"))
    record = path.with_name(".a.svs.json")
    assert json.loads(record.read_text()).keys() == {"address", "size", "version", "mtime_ns"}
    for spoil in (lambda: path.write_bytes(b"wrong"), record.unlink, lambda: record.write_text("{")):
        spoil()
        if not record.is_file():
            path.write_bytes(b"wrong")
        assert fetch(f"{server.address}/a.svs", Path("cache")).read_bytes() == b"right"


def test_the_progress_of_a_large_copy_is_shown(server, capsys, monkeypatch):
    monkeypatch.setattr(remote, "_LARGE", 1e6)
    Path("there/a.svs").write_bytes(b"x" * 9_000_000)
    fetch(f"{server.address}/a.svs", Path("cache"))
    assert "copying a.svs, MB: 9/9 done" in capsys.readouterr().err


def test_without_the_server_a_whole_copy_is_taken_and_said(server, capsys):
    Path("there/a.svs").write_bytes(b"x")
    address = f"{server.address}/a.svs"
    path = fetch(address, Path("cache"))
    server.stop()
    _close(address)
    assert fetch(address, Path("cache")) == path
    assert "The copy that is here is used" in capsys.readouterr().err


def _close(address: str) -> None:
    """fsspec keeps its connection, over which a stopped server still answers."""
    fsspec.filesystem("http").clear_instance_cache()


def test_all_files_of_a_slide_come_from_a_store_that_lists(folder):
    system = fsspec.filesystem("memory")
    for path in make_dicom_slide("local", "a", side=128):
        system.put(str(path), f"/bucket/d/{path.name}")
    for name in ("m.mrxs", "m/Data0.dat", "m/deep/x.dat", "other.svs", "v.vms", "v(0,1).jpg"):
        system.pipe(f"/bucket/{name}", name.encode())
    found = {}
    for name in ("d/a-1.dcm", "m.mrxs", "v.vms"):
        path = fetch(f"memory://bucket/{name}", Path("cache") / name)
        beside = (p for p in path.parent.rglob("*") if p.is_file() and not p.name.startswith("."))
        found[name] = sorted(p.relative_to(path.parent).as_posix() for p in beside)
    assert found == {
        "d/a-1.dcm": ["a-0.dcm", "a-1.dcm"],
        "m.mrxs": ["m.mrxs", "m/Data0.dat", "m/deep/x.dat"],
        "v.vms": ["v(0,1).jpg", "v.vms"],
    }


def test_no_name_on_a_server_leads_out_of_the_folder_of_copies(folder):
    system = fsspec.filesystem("memory")
    for name in ("/evil/m.mrxs", "/evil/m/../../../x.dat"):
        system.store[name] = MemoryFile(system, name, b"x")
    with pytest.raises(CannotFetch, match="leads out of its folder"):
        fetch("memory://evil/m.mrxs", Path("deep/cache"))
    assert [p.name for p in folder.rglob("x.dat")] == []


@pytest.mark.parametrize(
    "root, value, words",
    [
        ("slides", "file:///etc/hostname", "a kind that isn't read (file)"),
        ("slides", "ssh://host/a.svs", "a kind that isn't read (ssh)"),
        ("slides", "https://me:secret@host/a.svs", "holds a password"),
        ("memory://bucket", "../other/a.svs", "leads elsewhere"),
        ("slides", "https://host/a.mrxs", "is one of several files"),
        ("memory://bucket", "a.svs", "there is no file"),
    ],
)
def test_other_addresses_are_refused_in_words(folder, root, value, words, monkeypatch):
    if "mrxs" in value:
        monkeypatch.setattr(remote, "_stated", lambda address: remote.Stated(1, ""))
        monkeypatch.setattr(remote, "_copy", lambda *_: None)
    with pytest.raises(NoFile) as caught:
        Root(root, Path("cache")).find(value)
    assert words in caught.value.problem and "secret" not in caught.value.problem + caught.value.remedy


@pytest.mark.parametrize(
    "package, kind, remedy",
    [
        ("s3fs", "s3", "with its extra 'remote'"),
        ("gcsfs", "gs", "pip install gcsfs"),
        ("adlfs", "az", "pip install adlfs"),
    ],
)
def test_a_missing_package_is_named(folder, package, kind, remedy):
    """Where it can't be imported."""
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from pathlib import Path; from histoloom.data.slide_files import NoFile, Root\n"
        f"try: Root('{kind}://bucket/slides', Path('cache')).find('a.svs')\n"
        "except NoFile as error: print(error.problem, error.remedy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs a package that is missing" in done.stdout and remedy in done.stdout


def test_a_study_elsewhere_keeps_addresses_as_they_are(folder):
    (folder / "params.yaml").write_text(
        "tile: {mpp: 1.0, slides_root: 's3://bucket/slides', labels: {source: none}}", encoding="utf-8"
    )
    params: Params = Study(folder).params
    assert params.tile.slides_root == "s3://bucket/slides"
    assert params.tile.remote_cache == str(folder / ".histoloom/remote")
