"""Small sets of tiles in every form, and studies of them alone."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from histoloom.config import Params
from tests.build import tissue_picture, write_csv
from tests.stages import run, study_of

PX = 32
CLASSES = ("stroma", "tumour")
FORMS = ("image_folder", "csv", "webdataset", "parquet", "parquet_hf", "npz", "hdf5")
LABELS = {"source": "slide", "classes": [*CLASSES]}
MASKS = {"masks": {"source": "raster", "classes": ["nucleus", "clear"]}}


class Tiles:
    """Tiles of tissue, four of each of six patients, with labels and masks."""

    def __init__(self, count: int = 24, px: int = PX, seed: int = 0):
        side = int(np.ceil(np.sqrt(count))) * px
        picture = tissue_picture(side, side, seed)
        corners = [(y, x) for y in range(0, side, px) for x in range(0, side, px)][:count]
        self.images = np.stack([picture[y : y + px, x : x + px] for y, x in corners])
        self.masks = np.random.default_rng(seed).integers(0, 3, self.images.shape[:3]).astype(np.uint8)
        self.patients = [f"P{n // 4 % 6}" for n in range(count)]
        self.labels = [CLASSES[n % 2] for n in range(count)]
        self.names = [f"{patient}_{n:03d}" for n, patient in enumerate(self.patients)]

    def __len__(self) -> int:
        return len(self.images)


def encoded(picture: np.ndarray, form: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, **({"lossless": True} if form == "webp" else {}))
    return stream.getvalue()


def write_set(tiles: Tiles, folder: Path, form: str) -> dict:
    """Write the tiles, masks among them; what params state of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"mpp": 1.0, "name": "set", **_WRITERS[form](tiles, folder)}


def _folder(tiles: Tiles, folder: Path) -> dict:
    for image, mask, label, name in zip(tiles.images, tiles.masks, tiles.labels, tiles.names):
        for place, array in ((folder / "pictures", image), (folder / "masks", mask)):
            (place / label).mkdir(parents=True, exist_ok=True)
            (place / label / f"{name}.png").write_bytes(encoded(array))
    patterns = {"patient_id": r"/(P\d)_"}
    return {"path": f"{folder}/pictures", "masks": f"{folder}/masks", "patterns": patterns}


def _csv(tiles: Tiles, folder: Path) -> dict:
    _folder(tiles, folder)
    rows = [
        {
            "path": f"pictures/{label}/{name}.png",
            "mask": f"masks/{label}/{name}.png",
            "patient": patient,
            "label": label,
        }
        for label, name, patient in zip(tiles.labels, tiles.names, tiles.patients)
    ]
    write_csv(folder / "tiles.csv", rows)
    return {"path": f"{folder}/tiles.csv", "columns": {"patient_id": "patient"}}


def _tars(tiles: Tiles, folder: Path) -> dict:
    for number in range(2):
        with tarfile.open(folder / f"shard{number}.tar", "w") as tar:
            for n in range(number, len(tiles), 2):
                facts = json.dumps({"patient_id": tiles.patients[n], "nested": {"a": 1}}).encode()
                members = {"png": encoded(tiles.images[n]), "mask.png": encoded(tiles.masks[n])}
                members |= {"cls": str(CLASSES.index(tiles.labels[n])).encode(), "json": facts}
                for ending, content in members.items():
                    member = tarfile.TarInfo(f"{tiles.names[n]}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return {"path": f"{folder}/shard*.tar", "label_names": [*CLASSES]}


def _table(tiles: Tiles) -> dict:
    return {"patient_id": tiles.patients, "label": tiles.labels}


def _parquet(tiles: Tiles, folder: Path) -> dict:
    pictures = {"image": [encoded(i) for i in tiles.images], "mask": [encoded(m) for m in tiles.masks]}
    pq.write_table(pa.table(_table(tiles) | pictures), folder / "tiles.parquet", row_group_size=7)
    return {"path": f"{folder}/tiles.parquet"}


def _parquet_hf(tiles: Tiles, folder: Path) -> dict:
    pictures = [{"bytes": encoded(i), "path": f"{name}.png"} for i, name in zip(tiles.images, tiles.names)]
    numbers = [CLASSES.index(label) for label in tiles.labels]
    masks = [encoded(mask) for mask in tiles.masks]
    table = pa.table({"patient": tiles.patients, "label": numbers, "image": pictures, "mask": masks})
    facts = {"info": {"features": {"label": {"names": [*CLASSES], "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(facts)}), folder / "tiles.parquet")
    return {"path": f"{folder}/tiles.parquet", "columns": {"patient_id": "patient"}}


def _npz(tiles: Tiles, folder: Path) -> dict:
    arrays = {"images": tiles.images, "masks": tiles.masks, "labels": np.array(tiles.labels)}
    np.savez_compressed(folder / "tiles.npz", patient_id=np.array(tiles.patients), **arrays)
    return {"path": f"{folder}/tiles.npz"}


def _hdf5(tiles: Tiles, folder: Path) -> dict:
    with h5py.File(folder / "tiles.h5", "w") as file:
        file.create_dataset("image", data=tiles.images, chunks=True, compression="gzip")
        file["mask"] = tiles.masks
        file["label"] = [label.encode() for label in tiles.labels]
        file["patient_id"] = [patient.encode() for patient in tiles.patients]
    return {"path": f"{folder}/tiles.h5"}


_WRITERS = {
    "image_folder": _folder,
    "csv": _csv,
    "webdataset": _tars,
    "parquet": _parquet,
    "parquet_hf": _parquet_hf,
    "npz": _npz,
    "hdf5": _hdf5,
}


def params_of(*sets: dict, **tile) -> Params:
    """A study of sets alone."""
    base = {"manifest": None, "mpp": 1.0, "tile_px": PX, "stride_px": PX, "labels": LABELS, "sets": [*sets]}
    return Params.model_validate({"tile": base | tile})


def take_up(params: Params, workers: int = 0) -> dict:
    """The stage's metrics, and how many parts it made anew."""
    parts = Path(".work/tile/shared/parts")
    before = {*parts.iterdir()} if parts.is_dir() else set()
    metrics = run("tile", study_of(params, workers=workers))
    return metrics | {"made": len({*parts.iterdir()} - before)}


def by_picture(rows: pd.DataFrame, images: np.ndarray) -> dict[bytes, pd.Series]:
    """The bytes of a tile to its row."""
    return {image.tobytes(): row for image, (_, row) in zip(images, rows.iterrows())}
