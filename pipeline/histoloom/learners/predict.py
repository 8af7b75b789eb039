"""A slide through whatever model a folder holds: a learner of masks, a denoiser of masks, or a denoiser of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histoloom.cluster import threads_kept
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.errors import HistoloomError
from histoloom.learners.slide_files import PredictedSlide
from histoloom.sampling.predicted_slide import Asked
from histoloom.sampling.restored_slide import RestoredSlide, restore_slide
from histoloom.slides.slide import Slide

_NAMES = {"own_cohort": "--from", "cohort": "--to"}


@dataclass(frozen=True)
class Prediction:
    """What is asked of a model.

    samples : that a denoiser draws; None for 1 picture, or 5 masks. seed : of its noise.
    strength : noise that the slide gets before it is removed again, as a fraction of the schedule between 0 and 1.
    regions : GeoJSON polygons in level-0 px: these are made anew, and all else is kept.
    own_cohort, cohort : column to value: what the slide looks like, and what it is to look like.
    """

    samples: int | None = None
    seed: int = 0
    strength: float | None = None
    regions: Path | None = None
    own_cohort: Mapping[str, str] = field(default_factory=dict)
    cohort: Mapping[str, str] = field(default_factory=dict)

    @property
    def stated(self) -> list[str]:
        """Names of what is stated, but for the seed."""
        names = ("samples", "strength", "regions", "own_cohort", "cohort")
        return [name for name in names if getattr(self, name) not in (None, {})]


def option(name: str) -> str:
    """A field of `Prediction` as the command line calls it."""
    return _NAMES.get(name, f"--{name}")


def model_folder(model: Path) -> Path:
    """The folder of a model, which a study's folder may stand for.

    Raises
    ------
    HistoloomError
        when there are several.
    """
    model = model.resolve()
    place = model if not (model / "params.yaml").is_file() or (model / "denoiser").is_dir() else model / "models"
    several = [path.parent.name for path in sorted(place.glob("*/denoiser"))]
    if several and not (place / "denoiser").is_dir():
        raise HistoloomError(f"{place} holds several models: {', '.join(several)}. Name the folder of one.")
    return place


@threads_kept()
def predict_file(
    slide: Slide, out: Path, model: Path, asked: Prediction, device: str = "cpu", said: Callable[[str], str] = str
) -> PredictedSlide | RestoredSlide:
    """Write masks of a slide, or what a model makes of it, to the folder `out`.

    Parameters
    ----------
    model : as `model_folder` gives it. said : what a field of `asked` is called in errors.

    Raises
    ------
    HistoloomError
        when the model can't do what is asked.
    """
    if not (model / "denoiser").is_dir():
        _refuse(asked.stated, "a learner, which draws nothing", said)
        from histoloom.learners.kept import load_kept
        from histoloom.learners.slide import predict_slide

        return predict_slide(slide, load_kept(model, device), model, out)
    target, conditions = _made_by(model)
    if target == "masks":
        _refuse([name for name in asked.stated if name != "samples"], "a model of masks", said)
        from histoloom.learners.slide_canvas import predict_by_canvas

        return predict_by_canvas(slide, model, out, device, samples=asked.samples, seed=asked.seed)
    image = _image(asked, conditions, said)
    own = Asked(image, asked.cohort, asked.own_cohort, asked.regions, asked.samples or 1, asked.seed)
    return restore_slide(slide, model, own, out, device)


def _made_by(model: Path) -> tuple[str, tuple[str, ...]]:
    """What a model diffuses, and its conditions."""
    record = read_denoiser_record(model / "denoiser")
    if record is None:
        raise HistoloomError(f"{model} holds no trained denoiser: run dvc repro train_denoiser.")
    return record.training.target, tuple(spec.name for spec in record.conditions)


def _image(asked: Prediction, conditions: tuple[str, ...], said: Callable[[str], str]) -> dict[str, Any]:
    """How the canvas begins."""
    strength, regions, own, wanted = (said(name) for name in ("strength", "regions", "own_cohort", "cohort"))
    if asked.strength is not None and not 0 < asked.strength < 1:
        raise HistoloomError(f"{strength} is {asked.strength:g}, and lies between 0 and 1.")
    if bool(asked.own_cohort) != bool(asked.cohort):
        raise HistoloomError(f"{own} and {wanted} go together: what the slide looks like, and what it is to look like.")
    both = f"{own} with {wanted}"
    ways = {strength: asked.strength is not None, regions: asked.regions is not None, both: bool(asked.own_cohort)}
    chosen = [name for name, is_chosen in ways.items() if is_chosen]
    if len(chosen) > 1:
        raise HistoloomError(f"Take one of {', '.join(chosen)}.")
    if "picture" in conditions:
        if chosen:
            raise HistoloomError(f"The model is given the slide as its picture: leave {chosen[0]} out.")
        return {"picture": True}
    if not chosen:
        raise HistoloomError(
            f"The model isn't given pictures (condition picture). Say how it begins from the slide: {strength}, {regions}, or {both}."
        )
    if asked.own_cohort:
        return {"inverted": True}
    return {"keep": True} if asked.regions else {"strength": asked.strength}


def _refuse(stated: list[str], by: str, said: Callable[[str], str]) -> None:
    if stated:
        raise HistoloomError(f"{said(stated[0])} is of a model that makes pictures, and {said('model')} is {by}.")
