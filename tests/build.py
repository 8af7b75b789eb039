"""Real tiny inputs, made in code: slides, annotations, studies, tile stores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import tifffile
from PIL import Image
from ruamel.yaml import YAML
from scipy.ndimage import gaussian_filter

from histoloom.config import Params, load_params
from histoloom.data.commit import commit_part
from histoloom.data.schema import SYNTHETIC_ROW, TILE_ROW, VERDICT_COLUMNS, write_rows
from histoloom.data.store import TileWriter, cut_arrays

STAINS = np.array([[0.65, 0.70, 0.29], [0.17, 0.90, 0.40]])
"""Optical density of haematoxylin and eosin, a row each, in red, green and blue."""
OTHER_STAINS = np.array([[0.75, 0.62, 0.22], [0.25, 0.88, 0.30]])
"""The same two as another laboratory's batch would have them."""


def tissue_picture(width: int, height: int, seed: int = 0, stains=STAINS, strength: float = 1.0) -> np.ndarray:
    """An ellipse of pink stroma with purple blobs and nuclei on white glass, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((x / width - 0.5) / 0.45, (y / height - 0.5) / 0.45)
    inside = 1 / (1 + np.exp((radius - 1) * 40))
    texture = _field(rng, height, width, 3)
    blobs = _field(rng, height, width, 24) > 0.8
    nuclei = _field(rng, height, width, 2.5) > np.where(blobs, 0.6, 1.8)
    haematoxylin = 0.06 + 0.35 * blobs + 0.55 * gaussian_filter(nuclei.astype(np.float32), 0.7)
    eosin = 0.38 + 0.06 * texture - 0.15 * blobs
    amounts = np.stack([haematoxylin, np.clip(eosin, 0.02, None)], -1) * inside[..., None] * strength
    light = 245 * 10 ** -(amounts @ np.asarray(stains, np.float32)) + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(light, 0, 255).astype(np.uint8)


def _field(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """Smooth noise of unit variance."""
    field = gaussian_filter(rng.standard_normal((height, width), dtype=np.float32), sigma, mode="wrap")
    return field / field.std()


def make_slide(
    path,
    *,
    width: int = 512,
    height: int = 512,
    mpp: float | None = 1.0,
    seed: int = 0,
    levels: int = 2,
    stains=STAINS,
    strength: float = 1.0,
    picture: np.ndarray | None = None,
) -> Path:
    """Draw a slide and write it as its suffix says.

    Parameters
    ----------
    path : .tif, .tiff and .svs become tiled pyramidal TIFFs that OpenSlide reads; .png and .jpg plain images.
    mpp : µm/px at level 0, written to TIFFs; None leaves it out. Plain images never carry it.
    levels : of the pyramid, each half the size of the one before.
    picture : (height, width, 3) uint8 to write in place of the drawn tissue.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture is None:
        picture = tissue_picture(width, height, seed, stains, strength)
    if path.suffix in (".tif", ".tiff", ".svs"):
        _write_pyramid(path, picture, mpp, levels)
    else:
        Image.fromarray(picture).save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))
    return path


def _write_pyramid(path: Path, picture: np.ndarray, mpp: float | None, levels: int) -> None:
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            scale = {} if mpp is None else {"resolution": (1e4 / mpp / 2**level,) * 2, "resolutionunit": "CENTIMETER"}
            writer.write(
                picture,
                tile=(128, 128),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                metadata=None,
                **scale,
            )
            h, w = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            picture = picture[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)


def make_scanned_part(path, picture: np.ndarray, x_px: int, y_px: int, size: tuple[int, int]) -> Path:
    """A Leica SCN of (width, height) px at 0.5 µm/px, of which a picture at (x_px, y_px) was scanned: it states bounds.

    Picture and place are whole multiples of 16 px.
    """
    nm, (height, width) = 500, picture.shape[:2]
    place = f'offsetX="{x_px * nm}" offsetY="{y_px * nm}"'
    images = [
        _scn_image("macro", 0, (64, 64), (size[0] * nm, size[1] * nm), 'offsetX="0" offsetY="0"', "0.6"),
        _scn_image("main", 1, (width, height), (width * nm, height * nm), place, "20"),
    ]
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="t" '
        f'uuid="urn:uuid:0" sizeX="{size[0] * nm}" sizeY="{size[1] * nm}"><barcode></barcode>{"".join(images)}'
        "</collection></scn>"
    )
    form = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate", "metadata": None}
    form |= {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(np.full((64, 64, 3), 255, np.uint8), description=text, **form)
        file.write(picture, **form)
    return Path(path)


def _scn_image(name: str, page: int, px: tuple[int, int], nm: tuple[int, int], place: str, objective: str) -> str:
    return (
        f'<image name="{name}" uuid="urn:uuid:{page + 1}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
        f'<device model="x" version="1"/><pixels sizeX="{px[0]}" sizeY="{px[1]}"><dimension sizeX="{px[0]}" '
        f'sizeY="{px[1]}" r="0" ifd="{page}"/></pixels><view sizeX="{nm[0]}" sizeY="{nm[1]}" {place} spacingZ="0"/>'
        f"<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )


def feature(name: str | None, *rings, kind: str = "Polygon") -> dict:
    """A GeoJSON feature as QuPath writes it; the first ring is the outline, others are holes; rings close themselves."""
    closed = [[list(map(float, point)) for point in (*ring, ring[0])] for ring in rings]
    coordinates = closed[0][0] if kind == "Point" else closed
    named = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": named}


def box_ring(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def write_geojson(path, *features: dict) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}), encoding="utf-8")
    return path


def write_csv(path, rows: list[dict]) -> Path:
    """Write rows with the columns of all of them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(k for row in rows for k in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_study(folder, rows: list[dict], tile: dict | None = None, **sections: dict) -> Params:
    """Write manifests/slides.csv and params.yaml under `folder`, and read the params back.

    Paths in params are relative: work in `folder`.

    Parameters
    ----------
    rows : of slides.csv.
    tile : what differs from a study of 64 px tiles at 1 µm/px, labelled tumour or stroma by their slide.
    sections : other sections of params.yaml.
    """
    base = {
        "mpp": 1.0,
        "tile_px": 64,
        "stride_px": 64,
        "labels": {"source": "slide", "classes": ["tumour", "stroma"]},
    }
    params = {"tile": base | (tile or {}), **sections}
    folder = Path(folder)
    write_csv(folder / "manifests" / "slides.csv", rows)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)
    return load_params(folder / "params.yaml")


def tile_rows(count: int, **columns) -> pd.DataFrame:
    """Rows of a real store, `count` of them; `columns` are values, or lists of `count` of them."""
    fields = {
        "tile_id": [f"slide_{n}_0" for n in range(count)],
        "source": "real",
        "slide_id": "slide",
        "patient_id": "patient",
        "split_group": "patient",
        "split": "train",
        "label": "tumour",
        "x_level0_px": range(count),
        "y_level0_px": 0,
        "mpp": 1.0,
        "tissue_fraction": 1.0,
        "caption": "H&E",
        "spot_id": None,
        "predicted": False,
        "repaired": 0.0,
        "dataset": None,
        "slide_fields": "{}",
    }
    return pd.DataFrame(fields | columns, index=range(count))


def tiles(count: int, tile_px: int = 16, seed: int = 0) -> np.ndarray:
    """Tiles of noise, (count, tile_px, tile_px, 3) uint8, no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, tile_px, tile_px, 3), dtype=np.uint8)


def make_part(
    store,
    name: str,
    rows: pd.DataFrame,
    images: np.ndarray,
    schema: pa.Schema = TILE_ROW,
    masks: np.ndarray | None = None,
) -> None:
    """Commit a part of a tile store."""
    arrays = {"image": images} | ({} if masks is None else {"mask": masks})
    rows = rows if "masked" in rows else rows.assign(masked=masks is not None)

    def write(folder: Path) -> None:
        with TileWriter(folder, cut_arrays(images.shape[1], arrays)) as writer:
            for number in range(len(images)):
                writer.add(**{name: array[number] for name, array in arrays.items()})
        write_rows(rows, folder / "rows.parquet", schema)

    commit_part(Path(store), name, write)


def synthetic_rows(count: int, **columns) -> pd.DataFrame:
    """Rows of a synthetic store, `count` of them, by a generator 'g'; `columns` as of `tile_rows`."""
    guidance = [{"condition": "all", "scale": 2.0, "start": 0.0, "end": 1.0}]
    fields = {
        "tile_id": [f"synthetic-{n:03d}" for n in range(count)],
        "source": "synthetic",
        "slide_id": "",
        "patient_id": "",
        "rna": None,
        "genotype": None,
        "cohort": None,
        "number": None,
        "seed": 1,
        "scheduler": "ddim",
        "steps": 20,
        "precision": "fp32",
        "window_layout": None,
        "generator_sha256": "g",
        "condition_ref": "",
        "program": "",
        "input_ref": None,
        "like_ref": None,
        "guidance": [guidance] * count,
        "request": "",
        "purpose": "augment",
        "ancestors": [["train"]] * count,
    }
    return tile_rows(count, **fields | columns)


def write_verdicts(folder, rows: pd.DataFrame, accepted: list[bool]) -> None:
    """The verdicts on a part of synthetic tiles; those that aren't accepted are of low quality."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows if "masked" in rows else rows.assign(masked=False)
    rows = rows.assign(accepted=accepted, reject_reasons=[[] if a else ["low tissue quality"] for a in accepted])
    schema = pa.schema([*SYNTHETIC_ROW, *VERDICT_COLUMNS.items()])
    write_rows(rows, folder / "rows.parquet", schema)


def write_synthetic_lineage(store) -> None:
    """The record of a generator 'g' that saw nobody, beside the tiles that it made."""
    record = {"g": {"groups": [], "slides": [], "unknown": []}}
    (Path(store) / "lineage.json").write_text(json.dumps(record), encoding="utf-8")
