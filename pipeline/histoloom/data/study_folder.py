"""A study's folder: where its stages find things and leave things."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from histoloom.config import Cluster, Params, load_cluster, load_params
from histoloom.config.file_keys import placed
from histoloom.data.store import TileStore, stores_in
from histoloom.errors import HistoloomError


class _At:
    """A place under a study's root; where it names {model}, that of the model that is meant."""

    def __init__(self, place: str):
        self.place = place

    def __get__(self, study: Study, owner: type[Study]) -> Path:
        return study.root / (self.place.format(model=study.meant) if "{model}" in self.place else self.place)


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

    slides = _At("data/slides")
    tiles = _At("data/tiles")
    """The store of real tiles."""
    encoded = _At("data/encoded/{model}")
    plan = _At("data/plan")
    synthetic = _At("data/synthetic")
    """The store of tiles that were sampled one by one."""
    predicted = _At("data/predicted")
    """The store of what was made of real tiles to predict, and is never emitted."""
    woven = _At("data/woven")
    """The woven slides, a folder each."""
    woven_tiles = _At("data/woven_tiles")
    """The store of tiles that were cut from woven slides."""
    verdicts = _At("data/verdicts")
    """Rows of both synthetic stores, with scores and whether they were accepted."""
    dataset = _At("data/dataset")
    uplift = _At("data/uplift")
    models = _At("models/{model}")
    encoders = _At("models/{model}/encoders")
    autoencoder = _At("models/{model}/autoencoder")
    denoiser = _At("models/{model}/denoiser")
    filters = _At("models/filters")
    reviews = _At("reviews/verdicts.csv")
    """What readers said in blinded reviews."""
    own = _At(".histoloom")
    """What histoloom keeps for itself: the salt, the resolved params, hashes."""
    salt = _At(".histoloom/salt")
    resolved = _At(".histoloom/resolved.yaml")
    """What params.yaml means: every key with its default, and under `files` what the named files hold."""
    hashes = _At(".histoloom/hashes.json")

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
    def meant(self) -> str:
        """The model that is meant; '' of a study with one, and of a folder that no params are in."""
        known = "stated" in vars(self) or (self.root / "params.yaml").is_file()
        return self.model or ([*self.stated.links][-1] if known else "")

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


def place_of(models: Path) -> Study:
    """The study or the package that a folder of models is of, as if it had this model alone.

    Raises
    ------
    HistoloomError
        when no params.yaml lies there or above.
    """
    models = models.resolve()
    for root in (models, *list(models.parents)[:2]):
        if not (root / "params.yaml").is_file():
            continue
        study = Study(root)
        own = study.of(models.name) if models.name in study.stated.models else study
        if models in (root, own.models.resolve()):
            return own
        break
    raise HistoloomError(
        f"{models} is no package, nor the models folder of a study with its params.yaml, which states scale and conditions: "
        "leave it where it was made, or package it (histoloom package)."
    )
