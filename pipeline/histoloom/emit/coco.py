"""Masks of emitted tiles as COCO: the JSON of object detection, with uncompressed run lengths, so that masks stay exact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoloom.data.store import UNKNOWN
from histoloom.emit.formats import png


@dataclass(frozen=True)
class MaskedTile:
    """A tile with what is known of its pixels.

    row : the columns that leave. image : (h, w, 3) uint8.
    mask : (h, w) uint8 class ids; 0 is background, UNKNOWN is not known.
    instances : (h, w) int32 numbers of objects, 0 for none; None where objects aren't told apart.
    """

    row: dict[str, Any]
    image: np.ndarray
    mask: np.ndarray
    instances: np.ndarray | None = None


def write_coco(folder: Path, split: str, tiles: Iterator[MaskedTile], classes: Sequence[str], licence: str) -> None:
    """Write `SPLIT/KEY.png` and `annotations/SPLIT.json`. Annotations are streamed; one entry for each image is held.

    Parameters
    ----------
    classes : of masks, in the order of their ids 1, 2, ..., which are those of the categories.
    """
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    count = 0
    with (folder / "annotations" / f"{split}.json").open("w", encoding="utf-8") as stream:
        stream.write('{"annotations": [')
        for tile in tiles:
            name = f"{tile.row['key']}.png"
            (folder / split / name).write_bytes(png(tile.image))
            images.append(_image(len(images) + 1, name, tile))
            for found in annotations_of(tile.mask, tile.instances, len(classes)):
                stream.write(",\n" if count else "\n")
                count += 1
                json.dump({"id": count, "image_id": len(images), **found}, stream)
        rest = {
            "images": images,
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
            "licenses": [{"id": 1, "name": licence, "url": ""}],
            "info": {"description": f"{split}: masks of tiles, made with histoloom"},
        }
        stream.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")


def _image(number: int, name: str, tile: MaskedTile) -> dict[str, Any]:
    height, width = tile.mask.shape
    out = {"id": number, "file_name": name, "height": height, "width": width, "license": 1, **tile.row}
    unknown = tile.mask == UNKNOWN
    return out | ({"unknown": run_lengths(unknown)} if unknown.any() else {})


def annotations_of(mask: np.ndarray, instances: np.ndarray | None, classes: int) -> Iterator[dict[str, Any]]:
    """An annotation for each object, and one for each class of what no object covers.

    An object has the class of most of its pixels. Objects without a class in the mask are left to no category, and so left out.
    """
    free = np.ones(mask.shape, bool)
    if instances is not None:
        for number in np.unique(instances[instances > 0]):
            where = instances == number
            counts = np.bincount(mask[where & (mask != UNKNOWN)], minlength=classes + 1)[1 : classes + 1]
            if counts.any():
                free &= ~where
                yield _annotation(where, int(counts.argmax()) + 1)
    for number in range(1, classes + 1):
        if (where := free & (mask == number)).any():
            yield _annotation(where, number)


def _annotation(where: np.ndarray, category: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        "category_id": category,
        "segmentation": run_lengths(where),
        "area": int(where.sum()),
        "bbox": box,
        "iscrowd": 0,
    }


def run_lengths(where: np.ndarray) -> dict[str, list[int]]:
    """Of a (h, w) bool, column by column: how many pixels are out, then in, and so on."""
    flat = where.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    borders = np.concatenate([[0] * (1 + int(flat[0])), changes, [flat.size]])
    return {"size": [*where.shape], "counts": np.diff(borders).tolist()}
