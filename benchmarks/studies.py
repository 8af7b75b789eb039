"""Studies that a benchmark runs as a user would: manifests, params, and the stages one after the other, in process."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from click.testing import CliRunner
from ruamel.yaml import YAML

from benchmarks.run import chip
from histoloom.cli.main import cli
from histoloom.cli.recipe import merge
from histoloom.conditions.encode import batch, null
from histoloom.config import Sample
from histoloom.data.commit import digest, hash_tree
from histoloom.data.plan import PLAN
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.sampling.diffusion_model import generator_sha256, load_diffusion_model
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.studies.stage_work import run_stage


class Study:
    """A study's folder. What a broken run had finished is taken up by the next."""

    def __init__(
        self, folder: Path, params: dict, slides: list[dict], files: dict[str, Path], workers: int | str = "auto"
    ):
        """`files` (place under the study to source) are copied; `slides` are the rows of slides.csv."""
        self.folder, self.params, self.slides, self.workers = folder, params, slides, workers
        for place, source in files.items():
            if not (folder / place).exists():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / place)
        (folder / "manifests").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(slides).to_csv(folder / "manifests/slides.csv", index=False)
        _write_yaml(folder / "cluster.yaml", {"workers": workers})

    def copied(self, name: str, changes: dict) -> Self:
        """A study beside this one that begins with all that it has, work folders too: what the changes leave as it is isn't done again."""
        folder, params = self.folder.parent / name, copy.deepcopy(self.params)
        merge(params, changes)
        if not folder.exists():
            linked = ("data", "models", "reports")  # of which stages replace files whole, so that links will do
            for place in (p for p in self.folder.iterdir() if p.is_dir()):
                shutil.copytree(
                    place, folder / place.name, copy_function=os.link if place.name in linked else shutil.copy2
                )
        return type(self)(folder, params, self.slides, {}, self.workers)

    def run(self, *stages: str) -> None:
        with self._inside():
            _write_yaml(Path("params.yaml"), self.params)
            for name in stages:
                run_stage(name)

    def train(self) -> None:
        self.run("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan")

    def sample(self, name: str, guidance: dict[str, float]) -> np.ndarray:
        """The plan's tiles under this guidance, in the plan's order, (n, h, w, 3) uint8; kept for the next run of the same."""
        sample, models = self.params["sample"] | {"guidance": guidance}, self.folder / "models"
        made_by = digest([sample, generator_sha256(models), hash_tree(self.folder / "data/plan")])[:12]
        kept = self.folder / "data" / f"synthetic-{name}-{made_by}"
        if not kept.exists():
            before, self.params = self.params, self.params | {"sample": sample}
            self.run("sample")
            self.params = before
            (self.folder / "data/synthetic").rename(kept)
        store = TileStore(kept)
        rows = store.rows().set_index("tile_id", drop=False).loc[self.plan["tile_id"]]
        return store.read(rows)

    def varied(self, name: str, rows: pd.DataFrame, scale: float) -> np.ndarray:
        """Tiles of one seed under one condition of each of the plan's rows, all others null."""
        with self._inside():
            models = Path("models")
            model = load_diffusion_model(models, generator_sha256(models), "auto", chip())
            sources = self.tiles.rows().set_index("tile_id", drop=False).loc[rows["condition_ref"]]
            arrays = model.conditions.arrays(rows, partial(self.tiles.read, sources))
            given = batch(arrays, model.specs, np.arange(len(rows)))
            guidance = {spec.name: scale if spec.name == name else 0.0 for spec in model.specs}
            seeds = np.full(len(rows), rows["seed"].iloc[0], np.uint64)
            sample = Sample(**self.params["sample"] | {"guidance": guidance})
            nothing = null(arrays, model.specs)
            return Drawn(model, sample, Rows(seeds, given, nothing)).samples[0]["image"]

    def predicted(self, name: str, slide: Path, mpp: float | str) -> dict[str, Path]:
        """Files of the masks that the segmenter of the filters predicts for a slide, by their place in a study's slides; kept for the next run."""
        out = self.folder / "predicted" / name
        if not (out / "prediction.json").exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            model = str(self.folder / "models/filters")
            done = CliRunner().invoke(cli, ["predict", str(slide), str(out), "--model", model, "--slide-mpp", str(mpp)])
            if done.exit_code:
                raise HistoloomError(done.output)
        return {f"data/slides/predicted/{name}/{path.name}": path for path in out.iterdir()}

    @property
    def plan(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "data/plan" / PLAN)

    @property
    def tiles(self) -> TileStore:
        return TileStore(self.folder / "data/tiles")

    def sources(self) -> pd.DataFrame:
        """The real rows whose conditions the plan's tiles were given, in the plan's order."""
        return self.tiles.rows().set_index("tile_id", drop=False).loc[self.plan["condition_ref"]]

    @contextmanager
    def _inside(self):
        before, arguments = Path.cwd(), sys.argv
        os.chdir(self.folder)
        sys.argv = sys.argv[:1]
        try:
            yield
        finally:
            os.chdir(before)
            sys.argv = arguments


def _write_yaml(path: Path, value: dict) -> None:
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(value, stream)


def change_params(path: Path, overlay: dict) -> None:
    """Change keys of a params.yaml, and keep its comments."""
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    merge(params, overlay)
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
