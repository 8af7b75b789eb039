"""`histoloom predict`: a slide through a trained learner or model, without a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from histoloom.errors import HistoloomError
from histoloom.progress import console

if TYPE_CHECKING:
    from histoloom.sampling.predicted_slide import Asked
    from histoloom.slides.slide import Slide

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("slide", type=_FILE)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="models/filters of a study whose filters look at masks, the models of a study, models/NAME if it has several, or a package's folder.",
)  # fmt: skip
@click.option(
    "--slide-mpp",
    type=click.FloatRange(min=0, min_open=True),
    help="The slide's own scale, µm/px, if its file doesn't state it.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--samples",
    type=click.IntRange(1),
    help="Samples that a denoiser draws. Default: 1 picture; 5 masks, or more if the study's plan says so. Masks are joined by vote, pictures by mean.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of a denoiser's noise.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Add noise to the slide up to this fraction of the schedule, and remove it again. Less changes less.",
)
@click.option(
    "--regions", type=_FILE, help="GeoJSON from QuPath: make these regions anew, and keep all else as it was scanned."
)
@click.option(
    "--from",
    "own",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Translate: the slide's own cohort, such as scanner=aperio.",
)
@click.option(
    "--to", "wanted", multiple=True, metavar="COLUMN=VALUE", help="Translate: the cohort that it is to look like."
)
def predict(
    slide: Path, folder: Path, model: Path, slide_mpp: float | None, device: str, samples: int | None, seed: int,
    strength: float | None, regions: Path | None, own: tuple[str, ...], wanted: tuple[str, ...],
) -> None:  # fmt: skip
    """Find masks in SLIDE, or restore, enlarge, translate or repair it.

    A learner of masks, or a model whose target is masks: FOLDER gets mask.tif (class ids), certainty.tif (255 is sure, 0 where the
    model was not run) mask.geojson, for QuPath to import, and prediction.json.

    A model that makes pictures: FOLDER gets slide.tif, made.geojson (what the model made), viewer.html and
    canvas.json. A model with the condition picture
    is shown the slide. Any other needs one of --strength, --regions, or --from with --to.

    Ctrl-C stops it, and the same command goes on.
    """
    from histoloom.slides.open import open_slide

    model = _one_of(model.resolve())
    with open_slide(slide, slide_mpp) as opened:
        if not (model / "denoiser").is_dir():
            stated = {"--samples": samples, "--strength": strength, "--regions": regions, "--from": own, "--to": wanted}
            _refuse_options(stated, "a learner, which draws nothing")
            _by_learner(opened, folder, model, device)
            return
        target, conditions = _made_by(model)
        if target == "masks":
            _refuse_options(
                {"--strength": strength, "--regions": regions, "--from": own, "--to": wanted}, "a model of masks"
            )
            from histoloom.learners.slide_canvas import predict_by_canvas

            _say_masks(slide, folder, predict_by_canvas(opened, model, folder, device, samples=samples, seed=seed))
            return
        from histoloom.sampling.predicted_slide import Asked

        image = _image(strength, regions, own, wanted, conditions)
        asked = Asked(image, _fields(wanted), _fields(own), regions, samples or 1, seed)
        _restored(opened, folder, model, device, asked)


def _one_of(model: Path) -> Path:
    """The folder of a model, which a study's folder may stand for.

    Raises
    ------
    HistoloomError
        when there are several.
    """
    places = [model] if not (model / "params.yaml").is_file() or (model / "denoiser").is_dir() else [model / "models"]
    several = [path.parent.name for path in sorted(places[0].glob("*/denoiser"))]
    if several and not (places[0] / "denoiser").is_dir():
        raise HistoloomError(f"{places[0]} holds several models: {', '.join(several)}. Name the folder of one.")
    return places[0]


def _by_learner(slide: Slide, folder: Path, model: Path, device: str) -> None:
    from histoloom.learners.kept import load_kept
    from histoloom.learners.slide import predict_slide

    _say_masks(slide.path, folder, predict_slide(slide, load_kept(model, device), model, folder))


def _say_masks(slide: Path, folder: Path, found: Any) -> None:
    if not found.has_tissue:
        console.print(f"predict: no tissue was found in {slide.name}, so nothing was looked at", markup=False)
    regions = ", ".join(f"{count:,} of {name}" for name, count in found.regions.items())
    console.print(
        f"{folder}: {found.width} x {found.height} px at {found.mpp:g} µm/px; regions: {regions}", markup=False
    )


def _restored(slide: Slide, folder: Path, model: Path, device: str, asked: Asked) -> None:
    from histoloom.report.viewer import write_viewer
    from histoloom.sampling.restored_slide import VIEWER, restore_slide

    found = restore_slide(slide, model, asked, folder, device)
    write_viewer(folder, folder / VIEWER)
    if not found.share_made:
        console.print(f"predict: no tissue was found in {slide.path.name}, so nothing was made", markup=False)
    console.print(
        f"{folder}: {found.width} x {found.height} px at {found.mpp:g} µm/px, of which the model made {found.share_made:.0%}",
        markup=False,
    )


def _made_by(model: Path) -> tuple[str, tuple[str, ...]]:
    """What a model diffuses, and its conditions."""
    from histoloom.config.denoiser_record import read_denoiser_record

    record = read_denoiser_record(model / "denoiser")
    if record is None:
        raise HistoloomError(f"{model} holds no trained denoiser: run dvc repro train_denoiser.")
    return record.training.target, tuple(spec.name for spec in record.conditions)


def _image(
    strength: float | None,
    regions: Path | None,
    own: tuple[str, ...],
    wanted: tuple[str, ...],
    conditions: tuple[str, ...],
) -> dict[str, Any]:
    """How the canvas begins."""
    if strength is not None and not 0 < strength < 1:
        raise HistoloomError(f"--strength is {strength:g}, and lies between 0 and 1.")
    if bool(own) != bool(wanted):
        raise HistoloomError("--from and --to go together: what the slide looks like, and what it is to look like.")
    ways = {"--strength": strength is not None, "--regions": regions is not None, "--from with --to": bool(own)}
    chosen = [name for name, is_chosen in ways.items() if is_chosen]
    if len(chosen) > 1:
        raise HistoloomError(f"Take one of {', '.join(chosen)}.")
    if "picture" in conditions:
        if chosen:
            raise HistoloomError(f"The model is given the slide as its picture: leave {chosen[0]} out.")
        return {"picture": True}
    if not chosen:
        raise HistoloomError(
            "The model isn't given pictures (condition picture). Say how it begins from the slide: --strength, --regions, or --from with --to."
        )
    if own:
        return {"inverted": True}
    return {"keep": True} if regions else {"strength": strength}


def _fields(stated: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in stated]
    if wrong := [name + sign for name, sign, value in pairs if not (name and value)]:
        raise HistoloomError(f"'{wrong[0]}' states no cohort: write COLUMN=VALUE, such as scanner=aperio.")
    names = [name for name, _, _ in pairs]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise HistoloomError(f"'{twice[0]}' is stated twice: state each column once.")
    return {name: value for name, _, value in pairs}


def _refuse_options(stated: dict[str, Any], by: str) -> None:
    if wrong := [name for name, value in stated.items() if value]:
        raise HistoloomError(f"{wrong[0]} is of a model that makes pictures, and --model is {by}.")
