"""The Python door: a trained model that makes tiles, and a store of tiles to be read, each in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.few_steps import read_few_steps, with_few_steps
from histoloom.cluster import device as device_of
from histoloom.conditions.encode import Arrays, ConditionSet, batch, load_conditions, null
from histoloom.conditions.label import encode_labels
from histoloom.conditions.mask import mask_map
from histoloom.config import Cluster, Sample
from histoloom.config.channels import EDGE, read_channels
from histoloom.config.package import package_names, root, scales_of
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.progress import track
from histoloom.sampling.diffusion_model import DiffusionModel, check_distilled, load_target, no_tiles
from histoloom.sampling.drawn import ASKED, Drawn, Rows
from histoloom.sampling.given_pictures import Mask, Picture, as_ids, as_tile

_PARTS = ("autoencoder", "denoiser", "encoders")
_BATCH = 8
"""Tiles in a forward; the last batch is padded, so that a tile doesn't depend on how many there are."""


@dataclass(frozen=True)
class Samples:
    """Synthetic tiles.

    images : as PIL pictures.
    rows : one a tile, with `seed`, `label`, `caption` and `mpp` (µm/px, missing where the model chose it).
    """

    images: list[Image.Image]
    rows: pd.DataFrame


@dataclass(frozen=True)
class Model:
    """A trained diffusion model: `load` gives it.

    tile_px : side of the tiles that it makes. mpp : their scale, µm/px, unless `sample` is told another; None where nothing tells it.
    """

    folder: Path
    model: DiffusionModel
    mpp: float | None

    @property
    def tile_px(self) -> int:
        return self.model.record.training.px * self.model.raster.factor

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it can be told, such as ('label', 'text', 'mask')."""
        return tuple(spec.name for spec in self.model.specs)

    @property
    def settings(self) -> Sample:
        """How it is sampled unless `sample` is told: twenty steps; or the few of a distilled model, which has its guidance inside."""
        training = self.model.record.training
        if not training.distilled:
            return Sample()
        return Sample(
            scheduler="ddim", steps=training.distilled, guidance=1.0 if training.guidance_inside else Sample().guidance
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it knows."""
        return self._channels("label")

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """The classes of its masks, in the order of their ids: the first is 1, and 0 is background."""
        return tuple(name for name in read_channels(self._channels("mask"))[0][1:] if name != EDGE)

    def sample(
        self,
        n: int = 1,
        seed: int = 0,
        *,
        mask: Mask | Sequence[Mask] | None = None,
        text: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        like: Picture | Sequence[Picture] | None = None,
        mpp: float | None = None,
        settings: Sample | None = None,
    ) -> Samples:
        """Make n tiles. What is not given, the model chooses.

        Parameters
        ----------
        seed : tile number i has a seed of its own, made of `seed` and i; it does not depend on n.
        mask, text, label, like : one for all tiles, or a sequence of n. `like` is a tile whose embedding is given, so that
            what is made looks like it.
        mpp : scale of the tiles, µm/px; unstated, the model's own.
        settings : the section `sample` of params.yaml: scheduler, steps, guidance; unstated, `Model.settings`.

        Raises
        ------
        HistoloomError
            for a condition that the model doesn't know, a mask or tile of another size, a mask with unknown ids, an unknown
            label, and settings that a distilled model can't take.
        """
        settings = settings or self.settings
        check_distilled(self.model.record, settings, "sample")
        if n < 1:
            raise HistoloomError(f"n is {n}: ask for one tile at least.")
        if mpp is not None and not 0 < mpp < np.inf:
            raise HistoloomError(f"mpp is {mpp}: state the scale in µm/px, such as 0.5.")
        rows = pd.DataFrame(
            {
                "seed": np.array([item_seed(seed, f"tile-{number:06d}") for number in range(n)], np.uint64),
                "label": _for_each(label, n, "label"),
                "caption": _for_each(text, n, "text"),
                "mpp": self.mpp if mpp is None else mpp,
            }
        ).astype({"mpp": float})
        masks = (
            None
            if mask is None
            else np.stack([as_ids(one, self.tile_px, self.mask_classes) for one in _for_each(mask, n, "mask")])
        )
        tiles = None if like is None else np.stack([as_tile(one, self.tile_px) for one in _for_each(like, n, "like")])
        of = {"label": label, "text": text, "mask": mask, "image": like, "magnification": mpp}
        for name in (name for name, given in of.items() if given is not None and name not in self.conditions):
            raise HistoloomError(f"{self.folder} reads no {name}. It can be told: {', '.join(self.conditions)}.")
        images = self._images(rows, self._arrays(rows, masks, tiles), settings)
        return Samples([Image.fromarray(image) for image in images], rows)

    def interpolate(
        self, first: Picture, second: Picture, n: int = 8, seed: int = 0, *, settings: Sample | None = None
    ) -> Samples:
        """Make n tiles of one noise, whose codes lie at equal steps from one tile's to another's (Preechakul et al. 2022, section 4).

        Parameters
        ----------
        first, second : tiles whose embeddings are the ends, as `like` of `sample`.

        Raises
        ------
        HistoloomError
            of a model that reads no `image`, fewer than two tiles, and what `sample` refuses of tiles and settings.
        """
        settings = settings or self.settings
        check_distilled(self.model.record, settings, "sample")
        if "image" not in self.conditions:
            raise HistoloomError(f"{self.folder} reads no image. It can be told: {', '.join(self.conditions)}.")
        if n < 2:
            raise HistoloomError(f"n is {n}: a way from one tile to another has two ends.")
        rows = pd.DataFrame(
            {
                "seed": np.full(n, item_seed(seed, "tile-000000"), np.uint64),
                "label": None,
                "caption": None,
                "mpp": self.mpp,
            }
        ).astype({"mpp": float})
        start, end = self._arrays(rows[:2], None, np.stack([as_tile(one, self.tile_px) for one in (first, second)]))[
            "image"
        ]
        way = np.linspace(0, 1, n, dtype=np.float32)[:, None]
        arrays = self._arrays(rows, None, None) | {"image": (1 - way) * start + way * end}
        return Samples([Image.fromarray(image) for image in self._images(rows, arrays, settings)], rows)

    def _channels(self, name: str) -> tuple[str, ...]:
        return next((spec.channels for spec in self.model.specs if spec.name == name), ())

    def _arrays(self, rows: pd.DataFrame, masks: np.ndarray | None, like: np.ndarray | None) -> Arrays:
        """Each condition's array, the null's where it isn't given."""
        arrays: Arrays = {}
        px, specs = self.model.record.training.px, self.model.specs
        for spec in specs:
            if spec.name == "label":
                arrays["label"] = encode_labels(rows["label"].tolist(), spec.channels)
            elif spec.shape == "sequence" or spec.name == "magnification":
                arrays |= load_conditions((spec,), px, self.folder / "encoders").arrays(rows, no_tiles)
            elif spec.name == "image" and like is not None:
                own = load_conditions((spec,), px, self.folder / "encoders", self.model.device)
                arrays |= own.arrays(rows, lambda _: like)
            elif spec.name == "mask" and masks is not None:
                if EDGE in read_channels(spec.channels)[0]:
                    raise HistoloomError(
                        f"{self.folder} reads outlines of nuclei beside a mask: plan its tiles in a study."
                    )
                arrays["mask"] = mask_map(masks, None, spec.channels, px, px)
            else:
                shape = (spec.size, px, px) if spec.shape == "map" else (spec.size,)
                arrays[spec.name] = np.zeros((len(rows), *shape), np.float32)
        return arrays

    def _images(self, rows: pd.DataFrame, arrays: Arrays, settings: Sample) -> np.ndarray:
        """(n, tile_px, tile_px, 3) uint8."""
        seeds, asked = rows["seed"].to_numpy(), {n: rows[column].fillna("").to_numpy() for n, column in ASKED.items()}
        nulls, out = null(arrays, self.model.specs), []
        starts = range(0, len(seeds), _BATCH)
        for start in track(starts, "sample", len(starts)):
            index = np.resize(np.arange(start, min(start + _BATCH, len(seeds))), _BATCH)
            given = batch(arrays, self.model.specs, index)
            own = Rows(
                seeds[index], given, nulls, asked={name: values[index].tolist() for name, values in asked.items()}
            )
            out.append(Drawn(self.model, settings, own).samples[0]["image"])
        return np.concatenate(out)[: len(seeds)]


def _for_each(given, n: int, name: str) -> list:
    """One value a tile."""
    if (
        given is None
        or isinstance(given, str | Path | Image.Image)
        or (isinstance(given, np.ndarray) and given.ndim == (3 if name == "like" else 2))
    ):
        return [given] * n
    if len(given) != n:
        raise HistoloomError(
            f"There are {len(given)} values of {name} for {n} tiles. Give one for all, or one for each."
        )
    return list(given)


def load(source: str | Path, device: str = "auto", *, few_steps: bool = False) -> Model:
    """Load a trained model to make tiles with.

    Parameters
    ----------
    source : the name of a packaged model, such as 'histoloom-base'; the folder of a package; or a study's folder.
    device : 'cpu', 'cuda', or 'auto': a GPU where there is one.
    few_steps : take the package's updates for few steps, with which a tile takes a fraction of the time.

    Raises
    ------
    HistoloomError
        when there is no such model, it is damaged, or it has no updates for few steps.
    """
    folder = folder_of(source)
    where = device_of(Cluster.model_validate({"device": device}))
    network, record = load_denoiser(folder / "denoiser", where)
    if few_steps:
        record = with_few_steps(network, record, folder / "denoiser")
    model = DiffusionModel(load_target(folder, record, where), network, ConditionSet(()), record, where, Path(folder))
    scales = scales_of(str(source)) or scales_of(str(folder))
    return Model(folder, model, scales[0] if scales else _scale_of_study(folder))


def few_steps_of(source: str | Path) -> int | None:
    """The steps to which a model's updates for few steps lead; None where it has none."""
    facts = read_few_steps(folder_of(source) / "denoiser")
    return None if facts is None else facts["steps"]


def folder_of(source: str | Path) -> Path:
    """The folder that holds a model's parts: `autoencoder`, `denoiser` and `encoders`."""
    from histoloom.data.study_folder import Study

    of_study = Study(Path(source)).models if (Path(source) / "params.yaml").is_file() else Path(source) / "models"
    places = (root() / str(source), Path(source), of_study)
    for place in places:
        if all((place / part).is_dir() for part in _PARTS):
            return place
    raise HistoloomError(
        f"There is no model at '{source}'. Name a packaged model ({', '.join(package_names())}), the folder of one, or a study whose models are "
        "trained (dvc repro train_denoiser)."
    )


def _scale_of_study(models: Path) -> float | None:
    """tile.mpp of the study that holds a folder of models."""
    from histoloom.data.study_folder import Study

    for root_ in (models.parent, models.parent.parent):
        if (root_ / "params.yaml").is_file():
            return Study(root_).params.tile.mpp
    return None
