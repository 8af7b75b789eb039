"""Files of a study as a few files of a limited size, and back: a tar stream cut into pieces, whose sha256 an index states.

Pictures travel as lossless WebP, masks and other arrays as xz. What comes out has the same values, and this is checked. Tiles of the test split
are zeros there: no stage that trains reads them.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.data.commit import RECORD, discard, replace_tree, sha256_file, write_json
from histoloom.data.store import TileStore, write_arrays
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.registry import registered

INDEX = "index.json"
BEGUN = ".work/begun"
"""In a study: checkpoints that came from another machine, a folder a stage."""
_ARRAYS, _UNPACKED = "arrays.json", ".work/unpacked.json"
_STRIP_TILES, _MOST_WEBP_PX = 64, 16383
_WEBP: dict[str, Any] = {"lossless": True, "exact": True, "method": 1, "quality": 20}
"""Of stained tissue, the slowest settings save 2 % more for seven times the time."""


class _Cut:
    """Takes a stream and writes it as files of at most `limit` bytes."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit, self.left = folder, limit, 0
        self.hashes: dict[str, str] = {}
        self._file: io.BufferedWriter | None = None

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        while len(rest):
            if not self.left:
                self.close()
                self._file = (self.folder / f"piece-{len(self.hashes) + 1:03d}").open("wb")
                self.left = self.limit
            assert self._file is not None
            self.left -= (wrote := self._file.write(rest[: self.left]))
            rest = rest[wrote:]
        return len(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self.hashes[Path(self._file.name).name] = sha256_file(Path(self._file.name))
        self._file = None


class _Joined:
    """The stream that files hold one after another."""

    def __init__(self, paths: Iterable[Path]):
        self.chunks = (chunk for path in paths for chunk in _chunks(path))
        self.rest = b""

    def read(self, size: int) -> bytes:
        while len(self.rest) < size and (chunk := next(self.chunks, b"")):
            self.rest += chunk
        out, self.rest = self.rest[:size], self.rest[size:]
        return out


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(2**20), b"")


@contextmanager
def pieces(folder: Path, limit: int, facts: dict[str, Any]) -> Iterator[tarfile.TarFile]:
    """A tar file that is written to an empty folder as pieces of at most `limit` bytes, and their index, which holds `facts` too.

    Raises
    ------
    HistoloomError
        when the folder holds anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty: name a new folder, so that pieces of two packings are not mixed.")
    cut = _Cut(folder, limit)
    with tarfile.open(fileobj=cut, mode="w|", bufsize=2**20) as tar:
        yield tar
    cut.close()
    write_json(folder / INDEX, {"pieces": cut.hashes, **facts})


def open_pieces(folder: Path, into: Path) -> dict[str, Any]:
    """Write what the pieces hold to the folder `into`; what the index states.

    Raises
    ------
    HistoloomError
        when a piece is missing or was changed; each is named.
    """
    index = read_index(folder)
    wrong = [n for n, sha in index["pieces"].items() if not (folder / n).is_file() or sha256_file(folder / n) != sha]
    if wrong:
        raise HistoloomError(f"{folder}: {', '.join(wrong)} missing or changed on the way. Bring these pieces again.")
    joined = _Joined(folder / name for name in index["pieces"])
    with tarfile.open(fileobj=joined, mode="r|", bufsize=2**20) as tar:
        tar.extractall(into, filter="data")
    return index


def read_index(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HistoloomError(f"{folder} has no {INDEX}: bring it along with the pieces.") from None


def add_content(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def pack_study(study: Study, folder: Path, limit: int, *, models: bool) -> dict[str, int]:
    """Write what the training stages read of a study whose stage `tile` has run; pieces, bytes, and tiles that travel.

    models : take along what is trained already, so that the other stages alone run.
    """
    store, names = study.real(), arrays_of_training(study)
    plain = {"params.yaml": "params.yaml", "manifests": "manifests"} | (
        {"models": "models", BEGUN: "begun"} if models else {}
    )
    tiles = 0
    with pieces(folder, limit, {"arrays": names}) as tar:
        for place, name in plain.items():
            add_files(tar, study.root / place, name)
        for part in store.parts:
            tiles += _add_part(tar, store, part, names)
    sizes = [path.stat().st_size for path in folder.glob("piece-*")]
    return {"pieces": len(sizes), "bytes": sum(sizes), "tiles": tiles}


def arrays_of_training(study: Study) -> list[str]:
    """The arrays of the store that targets and conditions of a study are made of; pictures always."""
    found = {"image"}
    for params in study.params.run_models.values():
        config = params.train_denoiser
        found |= {*registered("target", config.target.name).reads} | ({"edge"} if params.encode.edges else set())
        found |= {name for condition in config.encoded for name in registered("condition", condition).reads}
    return sorted(found)


def add_files(tar: tarfile.TarFile, place: Path, name: str) -> None:
    """A file, or those of a folder where it is there, under `name`, without what a stage was about to write."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        inside = path.relative_to(place)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            add_content(tar, (Path(name) / inside).as_posix(), path.read_bytes())


def _kept(rows: pd.DataFrame) -> np.ndarray:
    """Places of the tiles that travel."""
    return np.flatnonzero(rows["split"].to_numpy() != "test")


def _add_part(tar: tarfile.TarFile, store: TileStore, part: str, names: list[str]) -> int:
    place, folder = f"data/tiles/{part}", store.folder / part
    for name in ("rows.parquet", RECORD):
        add_content(tar, f"{place}/{name}", (folder / name).read_bytes())
    kept, facts = _kept(pd.read_parquet(folder / "rows.parquet")), {}
    for name in names:
        if not store.has(name, part):
            continue
        array, content = store.array(part, name), hashlib.sha256()
        height = array.shape[1]
        size = max(1, min(_STRIP_TILES, _MOST_WEBP_PX // height))
        for number, start in enumerate(range(0, len(kept), size)):
            index = kept[start : start + size]
            tiles = np.ascontiguousarray(np.asarray(array[index[0] : index[-1] + 1])[index - index[0]])
            content.update(tiles.tobytes())
            add_content(tar, f"{place}/{name}/{number:06d}", _compressed(tiles))
        facts[name] = {"shape": array.shape, "dtype": str(array.dtype), "sha256": content.hexdigest()}
    add_content(tar, f"{place}/{_ARRAYS}", json.dumps(facts).encode())
    return len(kept)


def _is_picture(shape: tuple[int, ...], dtype: str) -> bool:
    return dtype == "uint8" and len(shape) == 4 and shape[3] == 3 and max(shape[1:3]) <= _MOST_WEBP_PX


def _compressed(tiles: np.ndarray) -> bytes:
    """Tiles (n, h, w, ...) as they travel: pictures below one another in one of WebP, other arrays as their bytes in xz."""
    if not _is_picture(tiles.shape, str(tiles.dtype)):
        return lzma.compress(tiles.tobytes(), preset=1)
    out = io.BytesIO()
    Image.fromarray(tiles.reshape(-1, *tiles.shape[2:])).save(out, "webp", **_WEBP)
    return out.getvalue()


def _restored(content: bytes, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if _is_picture(shape, dtype):
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, *shape[1:])
    return np.frombuffer(lzma.decompress(content), dtype).reshape(-1, *shape[1:])


def unpack_study(folder: Path, study: Path, workers: int) -> None:
    """Make the study that pieces hold, unless it was made of them before; each part of the store in a process, `workers` at once.

    Raises
    ------
    HistoloomError
        when pieces are not whole, or an array's values are not those that were packed.
    """
    came, before = study / ".work/came", study / _UNPACKED
    if before.is_file() and json.loads(before.read_text(encoding="utf-8")) == read_index(folder)["pieces"]:
        return
    discard(came)
    came.mkdir(parents=True)
    index = open_pieces(folder, came)
    parts = sorted((came / "data/tiles").iterdir())
    into = [study / "data/tiles"] * len(parts)
    if workers == 1:
        list(map(_make_part, parts, into))
    else:
        with ProcessPoolExecutor(min(workers, len(parts)), get_context("spawn")) as pool:
            list(pool.map(_make_part, parts, into))
    discard(came / "data")
    for path in sorted(came.iterdir()):
        replace_tree(path, study / (BEGUN if path.name == "begun" else path.name))
    discard(came)
    write_json(study / _UNPACKED, index["pieces"])


def _make_part(source: Path, tiles: Path) -> None:
    facts, rows = json.loads((source / _ARRAYS).read_text(encoding="utf-8")), pd.read_parquet(source / "rows.parquet")
    kept, arrays = _kept(rows), {}
    for name, fact in facts.items():
        shape, dtype = tuple(fact["shape"]), fact["dtype"]
        arrays[name] = np.zeros(shape, dtype)
        strips = sorted((source / name).glob("*"))
        own = np.concatenate(
            [np.empty((0, *shape[1:]), dtype), *(_restored(p.read_bytes(), shape, dtype) for p in strips)]
        )
        if hashlib.sha256(own.tobytes()).hexdigest() != fact["sha256"]:
            raise HistoloomError(f"{source.name}: '{name}' is not what was packed. This machine's decoder is another.")
        arrays[name][kept] = own
    folder = tiles / f".new-{source.name}"
    discard(folder)
    folder.mkdir(parents=True)
    write_arrays(folder, arrays)
    for name in (
        "rows.parquet",
        RECORD,
    ):  # the record of the whole part, so that a stage's fingerprint is the same there
        shutil.copy(source / name, folder / name)
    replace_tree(folder, tiles / source.name)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
