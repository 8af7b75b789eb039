"""A study's folder: where its stages find things and leave things."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from histoloom.config import Cluster, Params, load_cluster, load_params
from histoloom.config.file_keys import placed
from histoloom.data.store import TileStore, stores_in


@dataclass(frozen=True)
class Study:
    """The places of a study.

    Parameters
    ----------
    root : the folder that holds params.yaml. Files that params name are relative to it.
    model : of several models, the one that is meant; unstated, the last that is run.
    """

    root: Path = Path()
    model: str = ""

    def of(self, model: str) -> Study:
        """The study as if it had this model alone; '' stands for the only one."""
        own = Study(self.root, model)
        vars(own).update(stated=self.stated.of(model) if model else self.stated, cluster=self.cluster)
        return own

    @property
    def links(self) -> dict[str, Study]:
        """The models that are run one after another, by name, each as a study of its own."""
        return {name: self.of(name) for name in self.stated.links}

    @property
    def run_models(self) -> dict[str, Study]:
        """Every model that any request is run by, the same way."""
        return {name: self.of(name) for name in self.stated.run_models}

    @cached_property
    def stated(self) -> Params:
        """params.yaml with its defaults, names of files as they are written: what a stage's work is kept under."""
        return load_params(self.root / "params.yaml")

    @cached_property
    def params(self) -> Params:
        """The same, with files as they are found from the working directory."""
        return placed(self.stated, self.root)

    @cached_property
    def cluster(self) -> Cluster:
        return load_cluster(self.root / "cluster.yaml")

    @property
    def slides(self) -> Path:
        return self.root / "data/slides"

    @property
    def tiles(self) -> Path:
        """The store of real tiles."""
        return self.root / "data/tiles"

    @property
    def _model(self) -> str:
        """The model that is meant; '' of a study with one, and of a folder that no params are in."""
        known = "stated" in vars(self) or (self.root / "params.yaml").is_file()
        return self.model or ([*self.stated.links][-1] if known else "")

    @property
    def encoded(self) -> Path:
        return self.root / "data/encoded" / self._model

    @property
    def plan(self) -> Path:
        return self.root / "data/plan"

    @property
    def synthetic(self) -> Path:
        """The store of tiles that were sampled one by one."""
        return self.root / "data/synthetic"

    @property
    def predicted(self) -> Path:
        """The store of what was made of real tiles to predict, and is never emitted."""
        return self.root / "data/predicted"

    @property
    def woven(self) -> Path:
        """The woven slides, a folder each."""
        return self.root / "data/woven"

    @property
    def woven_tiles(self) -> Path:
        """The store of tiles that were cut from woven slides."""
        return self.root / "data/woven_tiles"

    @property
    def verdicts(self) -> Path:
        """Rows of both synthetic stores, with scores and whether they were accepted."""
        return self.root / "data/verdicts"

    @property
    def dataset(self) -> Path:
        return self.root / "data/dataset"

    @property
    def uplift(self) -> Path:
        return self.root / "data/uplift"

    @property
    def models(self) -> Path:
        """Holds the folders autoencoder, denoiser and encoders."""
        return self.root / "models" / self._model

    @property
    def encoders(self) -> Path:
        return self.models / "encoders"

    @property
    def autoencoder(self) -> Path:
        return self.models / "autoencoder"

    @property
    def denoiser(self) -> Path:
        return self.models / "denoiser"

    @property
    def filters(self) -> Path:
        return self.root / "models/filters"

    @property
    def reviews(self) -> Path:
        """What readers said in blinded reviews."""
        return self.root / "reviews/verdicts.csv"

    @property
    def own(self) -> Path:
        """What histoloom keeps for itself: the salt, the resolved params, hashes."""
        return self.root / ".histoloom"

    @property
    def salt(self) -> Path:
        return self.own / "salt"

    @property
    def resolved(self) -> Path:
        """What params.yaml means: every key with its default, and under `files` what the named files hold."""
        return self.own / "resolved.yaml"

    @property
    def hashes(self) -> Path:
        return self.own / "hashes.json"

    def reports(self, stage: str = "") -> Path:
        return self.root / "reports" / stage / self.model

    def work(self, stage: str) -> Path:
        """Where a stage keeps its lock, its parts and its checkpoints between runs."""
        return self.root / ".work" / (f"{stage}@{self.model}" if self.model else stage)

    def real(self) -> TileStore:
        """The store of real tiles, to be read."""
        return TileStore(self.tiles)

    def synthetic_stores(self, *, verdicts: bool = True) -> list[TileStore]:
        """The stores of synthetic tiles that hold any, those of woven slides last; their rows are the verdicts if asked."""
        return stores_in((self.synthetic, self.woven_tiles), self.verdicts if verdicts else None)
