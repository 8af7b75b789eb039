"""Training and predicting by the user's own command: a folder of pictures in, a Parquet table of predictions out."""

from __future__ import annotations

import io
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.config.file_names import class_folders
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Training


@dataclass(frozen=True)
class Command(Learner):
    """The user's own command (`uplift.command`), called once for one model, when it is to predict.

    Of labels it finds `{dataset}/train/CLASS/*.png`, `{dataset}/classes.json` and `{dataset}/test/TILE_ID.png`. It writes Parquet
    with `tile_id` and a column of probabilities for each class. Of masks it finds `{dataset}/train/images/*.png`,
    `{dataset}/train/masks/*.png` of the same names, in class ids, and `{dataset}/test/TILE_ID.png`. It writes Parquet with
    `tile_id` and `mask`, a PNG of class ids as bytes.
    """

    training: Training
    tasks = ("label", "mask")
    learning_rate = 1e-3
    predicts_once = True

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        """Write the tiles to learn from."""
        learner = cls(training)
        learner._write_labelled(images, truth) if training.task == "label" else learner._write_masks(images, truth)
        return learner

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        """Call it, on the tiles under their names.

        Raises
        ------
        HistoloomError
            when it fails, or what it wrote isn't what it was asked for.
        """
        names = list(ids) or [f"{number:06d}" for number in range(len(images))]
        table = self._predictions(names, images)
        return self._probabilities(table, names) if self.training.task == "label" else _masks(table, names, images)

    @property
    def _folder(self) -> Path:
        return self.training.run.checkpoints

    def _write_labelled(self, images: np.ndarray, truth: np.ndarray) -> None:
        classes = self.training.classes
        ordered = sorted(classes)  # so that names which can be folders are
        folders = dict(zip(ordered, class_folders(ordered)))
        write_json(self._folder / "dataset/classes.json", {"classes": ordered, "folders": list(folders.values())})
        names = [f"{folders[classes[label]]}/{number:06d}" for number, label in enumerate(truth)]
        _write(self._folder / "dataset/train", names, images)

    def _write_masks(self, images: np.ndarray, masks: np.ndarray) -> None:
        names = [f"{number:06d}" for number in range(len(images))]
        _write(self._folder / "dataset/train/images", names, images)
        _write(self._folder / "dataset/train/masks", names, masks)

    def _probabilities(self, table: pd.DataFrame, names: list[str]) -> np.ndarray:
        classes = self.training.classes
        try:
            found = table.loc[names, list(classes)].to_numpy(float)
        except KeyError as error:
            raise _wrong(f"a column for each of {', '.join(classes)}", error) from error
        if not np.isfinite(found).all() or (found < 0).any() or not np.allclose(found.sum(1), 1, atol=1e-3):
            raise HistoloomError("uplift.command wrote numbers that are no probabilities: a row's must add up to 1.")
        return found

    def _predictions(self, names: list[str], images: np.ndarray) -> pd.DataFrame:
        """Call it; the table that it wrote, by tile_id."""
        dataset, output, run = self._folder / "dataset", self._folder / "predictions.parquet", self.training.run
        _write(dataset / "test", names, images)
        filled = {"dataset": dataset, "predictions": output, "steps": run.steps, "seed": run.seed}
        command = [part.format(**filled) for part in shlex.split(self.training.command or "")]
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


def _masks(table: pd.DataFrame, names: list[str], images: np.ndarray) -> np.ndarray:
    try:
        found = [np.asarray(Image.open(io.BytesIO(data))) for data in table.loc[names, "mask"]]
    except (KeyError, TypeError, OSError, SyntaxError) as error:
        raise _wrong("`mask`, a PNG's bytes", error) from error
    for name, tile, mask in zip(names, images, found):
        if mask.shape != tile.shape[:2]:
            raise HistoloomError(
                f"uplift.command's mask of {name} is {mask.shape}: it must be {tile.shape[:2]}, of class ids."
            )
    return np.stack(found).astype(np.uint8)


def _wrong(column: str, error: Exception) -> HistoloomError:
    return HistoloomError(
        f"uplift.command wrote no Parquet with tile_id and {column}, a row for each image in {{dataset}}/test, to {{predictions}}: {error}"
    )


def _write(folder: Path, names: Iterable[str], images: Iterable[np.ndarray]) -> None:
    for name, image in zip(names, images):
        place = folder / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
