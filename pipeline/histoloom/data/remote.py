"""Files at addresses, such as s3://bucket/slide.svs: copied whole into a folder, and again where they changed.

A copy has a record beside it: the address, the size and the version that the server stated. It is written last, so that a copy that
broke off has none. Servers are reached through fsspec.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from histoloom.data.commit import digest, sync, write_json
from histoloom.errors import with_extra
from histoloom.progress import console, progress

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_KINDS = ("https", "http", "s3", "gs", "gcs", "az", "abfs", "memory")
"""Addresses that are read. file:// is none of them: it would lead out of the folder that params name."""
_VERSIONS = (
    "etag", "md5", "md5hash", "content-md5", "checksum", "content_md5", "digest", "last-modified", "lastmodified", "last_modified",
    "mtime", "updated", "created",
)  # fmt: skip
"""What servers call that which changes with a file, in the order of preference."""
_ASK_AGAIN_S = 60.0
_ASKED_AT_ONCE = 8
_SILENCE_S = 60.0
_LARGE = 1e8
"""Bytes of a file whose progress is shown."""
_INSTALL = dict.fromkeys(("gs", "gcs"), "run: pip install gcsfs") | dict.fromkeys(
    ("az", "abfs"), "run: pip install adlfs"
)
_RIGHTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket",
    **dict.fromkeys(("gs", "gcs"), "name the file of a key in GOOGLE_APPLICATION_CREDENTIALS"),
    **dict.fromkeys(
        ("az", "abfs"),
        "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ANON=true for a public container",
    ),
}
"""What states the rights of a user, by the kind of an address."""
_MAKE_ROOM = "make room there, or name another folder in tile.remote_cache."


def is_address(text: str) -> bool:
    return _ADDRESS.match(text) is not None


def join(root: str, value: str) -> str:
    """The address of a file under another."""
    return f"{root.rstrip('/')}/{quote(value) if root.lower().startswith('http') else value}"


class CannotFetch(Exception):
    """A file that can't be copied. gone : whether the server says that there is none."""

    def __init__(self, problem: str, remedy: str, *, gone: bool = False):
        self.problem, self.remedy, self.gone = problem, remedy, gone
        super().__init__(problem)


@dataclass(frozen=True)
class Stated:
    """What a server states of a file: its size, bytes, and its version, an ETag, a checksum or a time; '' if it states none."""

    size: int
    version: str


_asked: dict[str, tuple[float, Stated | CannotFetch]] = {}


def ask(addresses: Iterable[str]) -> dict[str, Stated | CannotFetch]:
    """What servers state of files, or why they state nothing. They are asked again after a minute."""
    due = time.monotonic() - _ASK_AGAIN_S
    every = [*dict.fromkeys(addresses)]
    new = [each for each in every if each not in _asked or _asked[each][0] < due]
    if new:
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(new))) as pool:
            _asked.update(zip(new, ((time.monotonic(), found) for found in pool.map(_stated, new))))
    return {each: _asked[each][1] for each in every}


def fetch(address: str, cache: Path) -> Path:
    """A whole copy of a file, and of what else a slide of its kind consists of; as it is on the server now.

    If the server can't be reached, a copy that is there is taken, and this is said.

    Raises
    ------
    CannotFetch
        when there is no such file, or no whole copy of it can be had.
    """
    path = _place(address, cache)
    _keep(address, path)
    folder = address[: address.rindex("/")]
    for beside in _companions(address):
        _keep(f"{folder}/{beside}", path.parent / beside)
    return path


def yet_to_copy(addresses: Iterable[str], cache: Path) -> tuple[int, int]:
    """How many files have no copy of the version that is on the server, and their bytes."""
    found = ask(addresses).items()
    sizes = [s.size for a, s in found if isinstance(s, Stated) and not _is_kept(_place(a, cache), s)]
    return len(sizes), sum(sizes)


def _keep(address: str, path: Path) -> None:
    """See to it that a copy is there, and is whole."""
    stated = ask([address])[address]
    if isinstance(stated, CannotFetch):
        if stated.gone or not _is_kept(path, None):
            raise stated
        console.print(f"note: {stated.problem} The copy that is here is used.", markup=False)
    elif not _is_kept(path, stated):
        _copy(address, path, stated)


def _place(address: str, cache: Path) -> Path:
    """Where a copy lies: those of files of one folder beside each other, under their own names."""
    parts = urlsplit(address)
    name = PurePosixPath(parts.path or parts.netloc).name
    folder = address.split("?")[0].rpartition("/")[0]
    return cache / digest([folder, parts.query])[:16] / name


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _is_kept(path: Path, stated: Stated | None) -> bool:
    """Whether a whole copy is there, of the version that is stated; of any if None is."""
    try:
        kept = json.loads(_record(path).read_text(encoding="utf-8"))
        found = path.stat()
    except (OSError, ValueError):
        return False
    whole = [found.st_size, found.st_mtime_ns] == [kept["size"], kept["mtime_ns"]]
    return whole and (stated is None or (kept["size"], kept["version"]) == (stated.size, stated.version))


def _copy(address: str, path: Path, stated: Stated) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if stated.size > shutil.disk_usage(path.parent).free:
        raise CannotFetch(
            f"'{address}' has {stated.size / 1e9:.3g} GB, and the disk of {path.parent} has less room.", _MAKE_ROOM
        )
    making = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}")
    try:
        system, place = _system(address)
        with _told(address), _shown(path.name, stated.size) as callback:
            system.get_file(place, str(making), callback=callback)
        size = making.stat().st_size if making.exists() else 0
        del _asked[address]
        if size != stated.size or ask([address])[address] != stated:
            problem = f"'{address}' broke off or changed while it was copied: {size:,} of {stated.size:,} bytes came."
            raise CannotFetch(problem, "run the same command again.")
        sync(making)
        _record(path).unlink(missing_ok=True)
        making.replace(path)
        mtime_ns = path.stat().st_mtime_ns
        write_json(_record(path), {"address": address, "size": size, "version": stated.version, "mtime_ns": mtime_ns})
    finally:
        making.unlink(missing_ok=True)


@contextmanager
def _shown(name: str, size: int) -> Iterator[Any]:
    """What fsspec tells of a copy: the progress of a large one, in MB."""
    from fsspec.callbacks import Callback

    if size < _LARGE:
        yield Callback()
        return
    with progress(f"copying {name}, MB", round(size / 1e6)) as advance:
        done = 0

        def tell(_: int | None, value: int, **__: Any) -> None:
            nonlocal done
            advance(round(value / 1e6) - done)
            done = round(value / 1e6)

        yield Callback(hooks={"advance": tell})


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what libraries raise of an address into words."""
    kind = address.partition("://")[0].lower()
    try:
        yield
    except ImportError as error:
        remedy = _INSTALL.get(kind, with_extra("remote"))
        raise CannotFetch(f"'{address}' needs a package that is missing ({error}).", remedy) from error
    except _refusals() as error:
        why: BaseException = error
        if isinstance(error, FileNotFoundError):  # which fsspec's http also makes of a server that doesn't answer
            why = error.__cause__ or error
            answered = isinstance(why, FileNotFoundError) or getattr(why, "status", 0) in (404, 410)
            if answered or not isinstance(why, _refusals("aiohttp")):
                raise CannotFetch(f"there is no file '{address}'.", "mend the address.", gone=True) from error
        said = (str(why) or type(why).__name__).partition("\n")[0]
        raise CannotFetch(f"'{address}' can't be reached ({said}).", _remedy(kind, said)) from error


def _remedy(kind: str, said: str) -> str:
    if "self-signed" in said or "issuer" in said:
        return "if you trust the server, name the file of its authority's certificate in SSL_CERT_FILE."
    rights = f": {_RIGHTS[kind]}" if kind in _RIGHTS else ""
    return f"look at the address, the network, and your rights there{rights}."


_ERRORS = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
}
"""Errors of their own that libraries raise; a library that isn't loaded raised none."""


def _refusals(*modules: str) -> tuple[type[BaseException], ...]:
    loaded = [(sys.modules[module], _ERRORS[module]) for module in modules or _ERRORS if module in sys.modules]
    return (OSError, ValueError, *(getattr(module, name) for module, names in loaded for name in names))


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the file's name there."""
    if (kind := address.partition("://")[0].lower()) not in _KINDS:
        problem = f"'{address}' is an address of a kind that isn't read ({kind})."
        raise CannotFetch(problem, f"use one of {', '.join(_KINDS[:-1])}, or copy the file.")
    with _told(address):
        from fsspec.core import url_to_fs

        return url_to_fs(address, **({"client_kwargs": {"timeout": _patience()}} if kind in ("http", "https") else {}))


def _patience() -> Any:
    """As long as bytes come, a copy may take any time; by default it is broken off after five minutes."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, connect=_SILENCE_S, sock_read=_SILENCE_S)


def _stated(address: str) -> Stated | CannotFetch:
    try:
        system, place = _system(address)
        with _told(address):
            system.invalidate_cache()
            found = {str(key).lower(): value for key, value in system.info(place).items()}
    except CannotFetch as error:
        return error
    if found.get("type") == "directory":
        return CannotFetch(f"'{address}' is a folder.", "name the file in it.", gone=True)
    if not isinstance(found.get("size"), int):
        problem = (
            f"the server states no size of '{address}', so that a whole copy can't be told from one that broke off."
        )
        return CannotFetch(problem, "copy it by hand, and name the copy.")
    return Stated(found["size"], next((str(found[key]) for key in _VERSIONS if found.get(key)), ""))


def _companions(address: str) -> list[str]:
    """The other files of a slide that consists of several: their paths from its folder.

    Raises
    ------
    CannotFetch
        when the server can't list them.
    """
    kind = PurePosixPath(urlsplit(address).path).suffix.lower()
    if kind not in (".mrxs", ".dcm", ".dicom", ".vms", ".vmu"):
        return []
    if address.lower().startswith("http"):
        problem = f"'{address}' is one of several files of its slide, and a web server doesn't list them."
        raise CannotFetch(problem, "copy the slide by hand, or read it from a store that lists, such as s3://.")
    system, place = _system(address)
    parent, _, name = place.rpartition("/")
    stem = PurePosixPath(name).stem
    with _told(address):
        if kind == ".mrxs":
            found = system.find(f"{parent}/{stem}")
        else:
            found = [each for each in system.find(parent, maxdepth=1) if _belongs(PurePosixPath(each), kind, stem)]
    beside = sorted(each[len(parent) + 1 :] for each in found if each != place)
    if any(part in ("", "..") for each in beside for part in each.split("/")):  # a store allows such names
        raise CannotFetch(f"a file beside '{address}' has a name that leads out of its folder.", "rename it.")
    return beside


def _belongs(other: PurePosixPath, kind: str, stem: str) -> bool:
    return other.name.startswith(stem) if kind in (".vms", ".vmu") else other.suffix.lower() in (".dcm", ".dicom")
