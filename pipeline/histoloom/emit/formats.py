"""Dataset formats: ImageFolder with metadata.jsonl, WebDataset shards, and Parquet with the images inside."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from histoloom.config.file_names import class_folders
from histoloom.data.commit import write_json

Item = tuple[dict, np.ndarray]


def png(image: np.ndarray) -> bytes:
    """A tile as PNG without any metadata."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def write_imagefolder(
    folder: Path, split: str, items: Iterator[Item], classes: Sequence[str], shard_tiles: int
) -> None:
    """`SPLIT/CLASS/KEY.png` with `SPLIT/metadata.jsonl`: torchvision's ImageFolder and HF's imagefolder read it.

    Each class has its folder in each split, empty ones too, since readers number the folders that they find.
    """
    root, folders = folder / split, dict(zip(classes, class_folders(classes)))
    for place in folders.values():
        (root / place).mkdir(parents=True)
        (root / place / ".keep").touch()  # git, DVC and archives forget a folder without files
    with (root / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for row, image in items:
            name = f"{folders[row['label']]}/{row['key']}.png"
            (root / name).write_bytes(png(image))
            lines.write(json.dumps({"file_name": name, **_numbered(row, classes)}, ensure_ascii=False) + "\n")


def write_webdataset(folder: Path, split: str, items: Iterator[Item], classes: Sequence[str], shard_tiles: int) -> None:
    """`SPLIT-00000.tar`, each item `KEY.png` and `KEY.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(_shards(items, shard_tiles)):
        with tarfile.open(folder / f"{split}-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, image in shard:
                facts = json.dumps(_numbered(row, classes), ensure_ascii=False).encode()
                for ending, payload in (("png", png(image)), ("json", facts)):
                    entry = tarfile.TarInfo(f"{row['key']}.{ending}")
                    entry.size = len(payload)
                    archive.addfile(entry, io.BytesIO(payload))


def write_parquet(folder: Path, split: str, items: Iterator[Item], classes: Sequence[str], shard_tiles: int) -> None:
    """`SPLIT-00000.parquet` with an `image` column that HF datasets decodes, and `label` as a ClassLabel: its number."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number, shard in enumerate(_shards(items, shard_tiles)):
        fields = {key: pa.array([row[key] for row, _ in shard]) for key in shard[0][0]}
        fields["label"] = pa.array([classes.index(row["label"]) for row, _ in shard], pa.int64())
        pictures = pa.array([{"bytes": png(image), "path": f"{row['key']}.png"} for row, image in shard], image_type)
        kinds = {key: str(array.type).replace("double", "float64") for key, array in fields.items()}
        features = {key: {"dtype": kind, "_type": "Value"} for key, kind in kinds.items()}
        described = {"huggingface": json.dumps({"info": {"features": features | known}})}
        table = pa.table({"image": pictures, **fields}).replace_schema_metadata(described)
        pq.write_table(table, folder / f"{split}-{number:05d}.parquet", row_group_size=256)


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """`classes.json`: the classes by their numbers, and the folders that ImageFolder finds, in the same order."""
    write_json(folder / "classes.json", {"classes": list(classes), "folders": list(class_folders(classes))})


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


def _numbered(row: dict, classes: Sequence[str]) -> dict:
    return {"key": row["key"], "cls": classes.index(row["label"]), **row}
