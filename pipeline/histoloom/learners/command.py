"""Training and predicting by the user's own command: a folder of pictures in, a Parquet table of predictions out."""

from __future__ import annotations

import io
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.config.file_names import class_folders
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError


@dataclass(frozen=True)
class LearnerCommand:
    """The user's own command (`uplift.command`), called once for one model.

    template : the command, with {dataset}, {predictions}, {steps} and {seed} to be filled in.
    folder : where its dataset and its predictions go.
    """

    template: str
    steps: int
    seed: int
    folder: Path

    def probabilities(
        self, images: np.ndarray, labels: Sequence[str], test: dict[str, np.ndarray], classes: tuple[str, ...]
    ) -> np.ndarray:
        """Its probabilities (n, classes) of test tiles.

        It finds `{dataset}/train/CLASS/*.png`, `{dataset}/classes.json` and `{dataset}/test/TILE_ID.png`. It writes Parquet
        with `tile_id` and a column of probabilities for each class.

        Parameters
        ----------
        images, labels : (m, h, w, 3) uint8 and (m,), the tiles to learn from.
        test : tile_id to tile (h, w, 3) uint8.

        Raises
        ------
        HistoloomError
            when it fails, or what it wrote isn't that.
        """
        ordered = sorted(classes)  # so that names which can be folders are
        folders = dict(zip(ordered, class_folders(ordered)))
        write_json(self.folder / "dataset/classes.json", {"classes": ordered, "folders": list(folders.values())})
        names = [f"{folders[label]}/{number:06d}" for number, label in enumerate(labels)]
        _write(self.folder / "dataset/train", names, images)
        table = self._predictions(test)
        try:
            found = table.loc[list(test), list(classes)].to_numpy(float)
        except KeyError as error:
            raise _wrong(f"a column for each of {', '.join(classes)}", error) from error
        if not np.isfinite(found).all() or (found < 0).any() or not np.allclose(found.sum(1), 1, atol=1e-3):
            raise HistoloomError("uplift.command wrote numbers that are no probabilities: a row's must add up to 1.")
        return found

    def masks(self, images: np.ndarray, masks: np.ndarray, test: dict[str, np.ndarray]) -> np.ndarray:
        """Its masks (n, h, w) uint8 of test tiles, in class ids.

        It finds `{dataset}/train/images/*.png`, `{dataset}/train/masks/*.png` of the same names, in class ids, and
        `{dataset}/test/TILE_ID.png`. It writes Parquet with `tile_id` and `mask`, a PNG of class ids as bytes.

        Parameters
        ----------
        images, masks : (m, h, w, 3) and (m, h, w) uint8, the tiles to learn from and their class ids.
        test : tile_id to tile (h, w, 3) uint8.

        Raises
        ------
        HistoloomError
            when it fails, or what it wrote isn't that.
        """
        names = [f"{number:06d}" for number in range(len(images))]
        _write(self.folder / "dataset/train/images", names, images)
        _write(self.folder / "dataset/train/masks", names, masks)
        table = self._predictions(test)
        try:
            found = [np.asarray(Image.open(io.BytesIO(data))) for data in table.loc[list(test), "mask"]]
        except (KeyError, TypeError, OSError, SyntaxError) as error:
            raise _wrong("`mask`, a PNG's bytes", error) from error
        for (name, tile), mask in zip(test.items(), found):
            if mask.shape != tile.shape[:2]:
                raise HistoloomError(
                    f"uplift.command's mask of {name} is {mask.shape}: it must be {tile.shape[:2]}, of class ids."
                )
        return np.stack(found).astype(np.uint8)

    def _predictions(self, test: dict[str, np.ndarray]) -> pd.DataFrame:
        """Call it; the table that it wrote, by tile_id."""
        dataset, output = self.folder / "dataset", self.folder / "predictions.parquet"
        _write(dataset / "test", test, test.values())
        filled = {"dataset": dataset, "predictions": output, "steps": self.steps, "seed": self.seed}
        command = [part.format(**filled) for part in shlex.split(self.template)]
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


def _write(folder: Path, names: Iterable[str], images: Iterable[np.ndarray]) -> None:
    for name, image in zip(names, images):
        place = folder / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
