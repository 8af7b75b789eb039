"""Dataset formats: ImageFolder with metadata.jsonl, WebDataset shards, and Parquet with the images inside."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import HistoloomError

Item = tuple[dict, np.ndarray]


def png(image: np.ndarray) -> bytes:
    """A tile as PNG without any metadata."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def write_imagefolder(folder: Path, split: str, items: Iterator[Item], shard_tiles: int) -> None:
    """`SPLIT/LABEL/KEY.png` with `SPLIT/metadata.jsonl`: torchvision's ImageFolder and HF's imagefolder read it."""
    root = folder / split
    root.mkdir(parents=True)
    named: dict[str, str] = {}
    with (root / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for row, image in items:
            place = _folder_name(row["label"])
            if named.setdefault(place, row["label"]) != row["label"]:
                raise HistoloomError(
                    f"Labels '{row['label']}' and '{named[place]}' would share the folder '{place}'. Rename one."
                )
            name = f"{place}/{row['key']}.png"
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(png(image))
            lines.write(json.dumps({"file_name": name, **row}, ensure_ascii=False) + "\n")


def write_webdataset(folder: Path, split: str, items: Iterator[Item], shard_tiles: int) -> None:
    """`SPLIT-00000.tar`, each item `KEY.png` and `KEY.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(_shards(items, shard_tiles)):
        with tarfile.open(folder / f"{split}-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, image in shard:
                for ending, payload in (("png", png(image)), ("json", json.dumps(row, ensure_ascii=False).encode())):
                    entry = tarfile.TarInfo(f"{row['key']}.{ending}")
                    entry.size = len(payload)
                    archive.addfile(entry, io.BytesIO(payload))


def write_parquet(folder: Path, split: str, items: Iterator[Item], shard_tiles: int) -> None:
    """`SPLIT-00000.parquet` with an `image` column that HF datasets decodes."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"info": {"features": {"image": {"_type": "Image"}}}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number, shard in enumerate(_shards(items, shard_tiles)):
        columns = {key: [row[key] for row, _ in shard] for key in shard[0][0]}
        pictures = pa.array([{"bytes": png(image), "path": f"{row['key']}.png"} for row, image in shard], image_type)
        fields = {key: pa.array(values) for key, values in columns.items()}
        features = described["info"]["features"] | {
            key: {"dtype": str(array.type).replace("double", "float64"), "_type": "Value"}
            for key, array in fields.items()
        }
        table = pa.table({"image": pictures, **fields})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / f"{split}-{number:05d}.parquet", row_group_size=256)


WRITERS = {"imagefolder": write_imagefolder, "webdataset": write_webdataset, "parquet": write_parquet}


def _shards(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    shard: list[Item] = []
    for item in items:
        shard.append(item)
        if len(shard) == size:
            yield shard
            shard = []
    if shard:
        yield shard


def _folder_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in label).strip(". ") or "unlabelled"
