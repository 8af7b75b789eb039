"""A trained diffusion model as Python code meets it: what `histoloom.load` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from histoloom.config import Sample
from histoloom.config.base import Precision
from histoloom.config.program import Program
from histoloom.errors import HistoloomError
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import check_distilled
from histoloom.sampling.given_pictures import Mask, Picture, Tiles, as_tile
from histoloom.sampling.one_slide import SlideToWeave, WovenPicture, weave_one
from histoloom.sampling.tiles import Samples, Stated, TileConditions, TileSampler, tile_seeds

if TYPE_CHECKING:
    from histoloom.data.store import TileStore
    from histoloom.learners.slide_files import PredictedSlide
    from histoloom.quality.score import Score
    from histoloom.sampling.restored_slide import RestoredSlide


@dataclass(frozen=True)
class Model:
    """A trained diffusion model: `load` gives it.

    folder : that holds autoencoder, denoiser and encoders. sampler : what makes its tiles. device : where it runs.
    few_steps : whether it takes its package's updates for few steps. precision : of its networks.
    """

    folder: Path
    sampler: TileSampler = field(repr=False)
    device: str = "cpu"
    few_steps: bool = False
    precision: Precision = "fp32"

    @property
    def tile_px(self) -> int:
        """Side of the tiles that it makes, px."""
        return self.sampler.tile_px

    @property
    def mpp(self) -> float | None:
        """Scale of its tiles, µm/px, unless it is told another; None where nothing tells it."""
        return next(iter(self.sampler.scales), None)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it can be told, such as ('label', 'text', 'mask')."""
        return tuple(spec.name for spec in self.sampler.model.specs)

    @cached_property
    def settings(self) -> Sample:
        """How it is sampled unless it is told: twenty steps; or the few of a distilled model, which has its guidance inside."""
        training = self.sampler.model.record.training
        if not training.distilled:
            return Sample(precision=self.precision)
        guidance = 1.0 if training.guidance_inside else Sample().guidance
        return Sample(scheduler="ddim", steps=training.distilled, guidance=guidance, precision=self.precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it knows."""
        return self.sampler.channels("label")

    @property
    def cohorts(self) -> tuple[str, ...]:
        """The cohorts that it knows, as 'column=value'."""
        return self.sampler.channels("cohort")

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """The classes of its masks, in the order of their ids: the first is 1, and 0 is background."""
        return self.sampler.mask_classes

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
        cohort: Mapping[str, str] | None = None,
        settings: Sample | None = None,
    ) -> Samples:
        """Make n tiles. What is not given, the model chooses.

        Parameters
        ----------
        seed : tile number i has a seed of its own, made of `seed` and i; it does not depend on n.
        mask, text, label, like : one for all tiles, or a sequence of n. `mask` holds class ids (`mask_classes`). `like` is a tile whose
            embedding is given, so that what is made looks like it.
        mpp : scale of the tiles, µm/px; unstated, the model's own.
        cohort : column to value, such as {"dataset": "her2st"} (`cohorts`).
        settings : the section `sample` of params.yaml: scheduler, steps, guidance; unstated, `Model.settings`.

        Raises
        ------
        HistoloomError
            for a condition that the model doesn't know, a mask or tile of another size, a mask with unknown ids, an unknown
            label, and settings that a distilled model can't take.
        """
        if n < 1:
            raise HistoloomError(f"n is {n}: ask for one tile at least.")
        told = self.sampler.conditions(Stated(mask, text, label, like, mpp, cohort), tile_seeds(seed, n))
        return self._samples(told, settings)

    def vary(
        self,
        tiles: Tiles,
        strength: float = 0.5,
        seed: int = 0,
        *,
        mask: Mask | Sequence[Mask] | None = None,
        text: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        like: Picture | Sequence[Picture] | None = None,
        mpp: float | None = None,
        cohort: Mapping[str, str] | None = None,
        settings: Sample | None = None,
    ) -> Samples:
        """Make a variation of each real tile: noise is added to it and removed again (Meng et al. 2022, SDEdit).

        A variation shows the patient of its tile: it belongs to that patient's split.

        Parameters
        ----------
        strength : how much noise, between 0 and 1, as a fraction of the schedule, rounded to whole steps of the solver. More changes more.
        mask, text, label, like, mpp, cohort, settings : as of `sample`.

        Raises
        ------
        HistoloomError
            for a strength that leaves nothing of the tile, and what `sample` refuses.
        """
        own, settings = self._tiles(tiles), self._checked(settings)
        if not 0 < strength < 1:
            raise HistoloomError(f"strength is {strength:g}, and lies between 0 and 1.")
        steps = settings.steps
        if make_solver(settings.scheduler, self.sampler.model.process, steps).begin(strength) == 0:
            raise HistoloomError(
                f"A strength of {strength:g} is all {steps} steps, which leave nothing of a tile. Lower it."
            )
        told = self.sampler.conditions(Stated(mask, text, label, like, mpp, cohort), tile_seeds(seed, len(own)))
        told.rows["input"], told.rows["strength"] = np.arange(len(own)), strength
        program = Program.model_validate({"start": {"from": "tile", "strength": strength}})
        return self._samples(told, settings, program, own)

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
        if n < 2:
            raise HistoloomError(f"n is {n}: a way from one tile to another has two ends.")
        seeds = np.repeat(tile_seeds(seed, 1), n)
        start, end = self.sampler.arrays(self.sampler.conditions(Stated(like=[first, second]), seeds[:2]))["image"]
        way = np.linspace(0, 1, n, dtype=np.float32)[:, None]
        return self._samples(self.sampler.conditions(Stated(), seeds), settings, codes=(1 - way) * start + way * end)

    def predict(
        self, tiles: Tiles, seed: int = 0, *, samples: int | None = None, settings: Sample | None = None
    ) -> np.ndarray:
        """What a model that is given pictures (the condition `picture`) makes of tiles: masks, or restored or translated tiles.

        Parameters
        ----------
        samples : how many are drawn of each tile; 1 picture or 5 masks unless stated. Masks are joined by vote, pictures by mean.

        Returns
        -------
        (n, tile_px, tile_px) uint8 class ids, or (n, tile_px, tile_px, 3) uint8.

        Raises
        ------
        HistoloomError
            of a model that isn't given pictures, or tiles of another size.
        """
        if "picture" not in self.conditions:
            raise HistoloomError(
                f"{self.folder} isn't given pictures (condition picture). To change tiles take vary; for a slide, predict_slide."
            )
        own, array = self._tiles(tiles), "mask" if "mask" in self.sampler.model.target.makes else "image"
        told = self.sampler.conditions(Stated(), tile_seeds(seed, len(own)))
        told = TileConditions(told.rows, picture=own)
        count, reduce = samples or (5 if array == "mask" else 1), "vote" if array == "mask" else "mean"
        program = Program.model_validate({"samples": count, "reduce": reduce})
        return self.sampler.draw(told.rows, self.sampler.arrays(told), self._checked(settings), program)[array]

    def predict_slide(
        self,
        slide: str | Path,
        out: str | Path,
        *,
        samples: int | None = None,
        seed: int = 0,
        strength: float | None = None,
        regions: str | Path | None = None,
        own_cohort: Mapping[str, str] | None = None,
        cohort: Mapping[str, str] | None = None,
        slide_mpp: float | None = None,
    ) -> PredictedSlide | RestoredSlide:
        """Restore, translate or repair a whole slide, or find masks in it, as `histoloom predict` does; files are written to the folder `out`.

        The same call continues after a break. A model that isn't given pictures needs `strength`, `regions`, or both cohorts. It is sampled
        as its params say, also with `few_steps`.

        Parameters
        ----------
        samples, seed, strength, regions, own_cohort, cohort : as of `Prediction`. slide_mpp : the slide's scale, if its file doesn't state it.

        Raises
        ------
        HistoloomError
            when the model can't do what is asked.
        """
        from histoloom.learners.predict import Prediction, predict_file
        from histoloom.report.viewer import write_viewer
        from histoloom.sampling.restored_slide import VIEWER, RestoredSlide
        from histoloom.slides.open import open_slide

        place = None if regions is None else Path(regions)
        asked = Prediction(samples, seed, strength, place, dict(own_cohort or {}), dict(cohort or {}))
        with open_slide(Path(slide), slide_mpp) as opened:
            found = predict_file(opened, Path(out), self.folder.resolve(), asked, self.device)
        if isinstance(found, RestoredSlide):
            write_viewer(Path(out), Path(out) / VIEWER)
        return found

    def weave(
        self,
        width_px: int,
        height_px: int,
        seed: int = 0,
        *,
        mask: np.ndarray | str | Path | None = None,
        outside: Literal["glass", "tissue"] = "tissue",
        text: str | None = None,
        label: str | None = None,
        mpp: float | None = None,
        cohort: Mapping[str, str] | None = None,
        settings: Sample | None = None,
        folder: str | Path | None = None,
    ) -> WovenPicture:
        """Weave a whole slide as one picture. `.pixels` of the result is an array, `.save("slide.tif")` writes a pyramid.

        Parameters
        ----------
        width_px, height_px : at least a tile's side each.
        mask : class ids (height_px, width_px), a raster's file, or GeoJSON polygons in px of the slide.
        outside : what lies where the mask names no class.
        text, label, mpp, cohort, settings : as of `sample`, for the whole slide.
        folder : where the work is kept, so that the same call continues after a break; unstated, a temporary folder.

        Raises
        ------
        HistoloomError
            for a slide smaller than a tile, and what `sample` refuses.
        """
        self.sampler.check_makes("image")
        if min(width_px, height_px) < (least := self.tile_px):
            raise HistoloomError(
                f"A slide of {width_px} x {height_px} px is smaller than the model's tile of {least} px."
            )
        place = Path(mask) if isinstance(mask, str) else mask
        self.sampler.check(Stated(place, text, label, None, mpp, cohort))
        stated = SlideToWeave(width_px, height_px, seed, place, outside, label, text, dict(cohort or {}), mpp)
        at = None if folder is None else Path(folder)
        return weave_one(self.folder, stated, self._checked(settings), self.device, few_steps=self.few_steps, folder=at)

    def score(self, images: Tiles, against: Tiles | TileStore, *, seed: int = 0) -> Score:
        """How near pictures are to real tiles: `histoloom.score` on the model's device."""
        from histoloom.quality.score import score

        return score(images, against, seed=seed, device=self.device)

    def _checked(self, settings: Sample | None) -> Sample:
        settings, record = settings or self.settings, self.sampler.model.record
        if "precision" in settings.model_fields_set and settings.precision != self.precision:
            raise HistoloomError(
                f"precision is of the whole model: histoloom.load(..., precision='{settings.precision}')."
            )
        check_distilled(record, settings, "sample")
        if settings.steps > record.training.train_timesteps:
            raise HistoloomError(f"{settings.steps} steps are more than the model's {record.training.train_timesteps}.")
        return settings.model_copy(update={"precision": self.precision})

    def _tiles(self, tiles: Tiles) -> np.ndarray:
        if not len(tiles):
            raise HistoloomError("There are no tiles. Give one at least.")
        return np.stack([as_tile(tile, self.tile_px) for tile in tiles])

    def _samples(
        self, told: TileConditions, settings: Sample | None, program: Program | None = None,
        tiles: np.ndarray | None = None, codes: np.ndarray | None = None
    ) -> Samples:  # fmt: skip
        self.sampler.check_makes("image")
        arrays = self.sampler.arrays(told) | ({} if codes is None else {"image": codes})
        made = self.sampler.draw(told.rows, arrays, self._checked(settings), program or Program(), tiles)
        return Samples([Image.fromarray(image) for image in made["image"]], told.rows)
