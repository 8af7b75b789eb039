"""Training and predicting by the user's own command: a folder of pictures in, a Parquet table of predictions out."""

from __future__ import annotations

import io
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.config import Uplift
from histoloom.config.names import class_folders
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError


def probabilities_by_command(
    config: Uplift, images: np.ndarray, labels: Sequence[str], test: np.ndarray, test_ids: Sequence[str],
    classes: tuple[str, ...], seed: int, folder: Path,
) -> np.ndarray:  # fmt: skip
    """Its probabilities (n, classes).

    It finds `{dataset}/train/CLASS/*.png`, `{dataset}/classes.json` and `{dataset}/test/TILE_ID.png`, and writes Parquet with `tile_id` and a column of
    probabilities for each class.

    Raises
    ------
    HistoloomError
        when it fails, or what it wrote isn't that.
    """
    ordered = sorted(classes)  # so that names which can be folders are
    folders = dict(zip(ordered, class_folders(ordered)))
    write_json(folder / "dataset/classes.json", {"classes": ordered, "folders": list(folders.values())})
    names = [f"{folders[label]}/{number:06d}" for number, label in enumerate(labels)]
    _write(folder / "dataset/train", names, images)
    table = _run(config, test, test_ids, seed, folder)
    try:
        found = table.loc[list(test_ids), list(classes)].to_numpy(float)
    except KeyError as error:
        raise _wrong(f"a column for each of {', '.join(classes)}", error) from error
    if not np.isfinite(found).all() or (found < 0).any() or not np.allclose(found.sum(1), 1, atol=1e-3):
        raise HistoloomError("uplift.command wrote numbers that are no probabilities: a row's must add up to 1.")
    return found


def masks_by_command(
    config: Uplift, images: np.ndarray, masks: np.ndarray, test: np.ndarray, test_ids: Sequence[str], seed: int, folder: Path
) -> np.ndarray:  # fmt: skip
    """Its class ids (n, h, w) uint8.

    It finds `{dataset}/train/images/*.png`, `{dataset}/train/masks/*.png` of the same names, in class ids, and
    `{dataset}/test/TILE_ID.png`; it writes Parquet with `tile_id` and `mask`, a PNG of class ids as bytes.

    Raises
    ------
    HistoloomError
        when it fails, or what it wrote isn't that.
    """
    names = [f"{number:06d}" for number in range(len(images))]
    _write(folder / "dataset/train/images", names, images)
    _write(folder / "dataset/train/masks", names, masks)
    table = _run(config, test, test_ids, seed, folder)
    try:
        found = [np.asarray(Image.open(io.BytesIO(data))) for data in table.loc[list(test_ids), "mask"]]
    except (KeyError, TypeError, OSError, SyntaxError) as error:
        raise _wrong("`mask`, a PNG's bytes", error) from error
    for name, mask in zip(test_ids, found):
        if mask.shape != test.shape[1:3]:
            raise HistoloomError(
                f"uplift.command's mask of {name} is {mask.shape}: it must be {test.shape[1:3]}, of class ids."
            )
    return np.stack(found).astype(np.uint8)


def _run(config: Uplift, test: np.ndarray, test_ids: Sequence[str], seed: int, folder: Path) -> pd.DataFrame:
    """Call it; the table that it wrote, by tile_id."""
    dataset, output = folder / "dataset", folder / "predictions.parquet"
    _write(dataset / "test", test_ids, test)
    filled = {"dataset": dataset, "predictions": output, "steps": config.steps, "seed": seed}
    command = [part.format(**filled) for part in shlex.split(config.command)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HistoloomError(f"uplift.command ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    try:
        table = pd.read_parquet(output).set_index("tile_id")
    except (OSError, KeyError, ValueError) as error:
        raise _wrong("predictions", error) from error
    if table.index.has_duplicates:
        raise HistoloomError(f"uplift.command wrote two rows for {table.index[table.index.duplicated()][0]}.")
    return table


def _wrong(column: str, error: Exception) -> HistoloomError:
    return HistoloomError(
        f"uplift.command wrote no Parquet with tile_id and {column}, a row for each test tile, to {{predictions}}: {error}"
    )


def _write(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    for name, image in zip(names, images):
        place = folder / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
