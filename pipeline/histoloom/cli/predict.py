"""`histoloom predict`: a slide through a trained learner or model, without a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from histoloom.errors import HistoloomError
from histoloom.progress import console

if TYPE_CHECKING:
    from histoloom.learners.slide_files import PredictedSlide
    from histoloom.sampling.restored_slide import RestoredSlide

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("slide", type=_FILE)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="Folder of the model: a study's models/filters (the segmenter of its mask filter), its models (models/NAME if it has several), or a package.",
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
    help="Samples that a denoiser draws. Default: 1 for pictures; 5 for masks, or more if the study's plan says so. Masks are joined by vote, pictures by mean.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of a denoiser's noise.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Add noise to the slide up to this fraction of the noise schedule, and remove it again. A smaller value changes less.",
)
@click.option(
    "--regions", type=_FILE, help="GeoJSON from QuPath: make these regions anew, and keep all else as it was scanned."
)
@click.option(
    "--from",
    "own",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="To translate: the slide's own cohort, such as scanner=aperio.",
)
@click.option(
    "--to",
    "wanted",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="To translate: the cohort that the result is to look like.",
)
def predict(
    slide: Path, folder: Path, model: Path, slide_mpp: float | None, device: str, samples: int | None, seed: int,
    strength: float | None, regions: Path | None, own: tuple[str, ...], wanted: tuple[str, ...],
) -> None:  # fmt: skip
    """Find masks in SLIDE, or restore, enlarge, translate or repair it.

    What FOLDER gets depends on the model.

    Masks, from a learner of masks or a model whose target is masks: mask.tif (class ids), certainty.tif (255 is sure, 0 is where the model was
    not run), mask.geojson for QuPath, and prediction.json.

    Pictures, from any other model: slide.tif, made.geojson (the regions that the model made), viewer.html and canvas.json. A model with the
    condition `picture` is shown the slide. Any other needs one of --strength, --regions, or --from with --to.

    Ctrl-C stops it. The same command then continues.
    """
    from histoloom.learners.predict import Prediction, model_folder, option, predict_file
    from histoloom.slides.open import open_slide

    place = model_folder(model)
    asked = Prediction(samples, seed, strength, regions, fields(own), fields(wanted))
    with open_slide(slide, slide_mpp) as opened:
        _say(slide, folder, predict_file(opened, folder, place, asked, device, option))


def _say(slide: Path, folder: Path, found: PredictedSlide | RestoredSlide) -> None:
    from histoloom.report.viewer import write_viewer
    from histoloom.sampling.restored_slide import VIEWER, RestoredSlide

    size = f"{folder}: {found.width} x {found.height} px at {found.mpp:g} µm/px"
    if isinstance(found, RestoredSlide):
        write_viewer(folder, folder / VIEWER)
        if not found.share_made:
            console.print(f"predict: no tissue was found in {slide.name}, so nothing was made", markup=False)
        console.print(f"{size}, of which the model made {found.share_made:.2%}", markup=False)
        return
    if not found.has_tissue:
        console.print(f"predict: no tissue was found in {slide.name}, so nothing was looked at", markup=False)
    regions = ", ".join(f"{count:,} of {name}" for name, count in found.regions.items())
    console.print(f"{size}; regions: {regions}", markup=False)


def fields(stated: tuple[str, ...]) -> dict[str, str]:
    """COLUMN=VALUE, each column once, as a mapping."""
    pairs = [text.partition("=") for text in stated]
    if wrong := [name + sign for name, sign, value in pairs if not (name and value)]:
        raise HistoloomError(f"'{wrong[0]}' states no cohort: write COLUMN=VALUE, such as scanner=aperio.")
    names = [name for name, _, _ in pairs]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise HistoloomError(f"'{twice[0]}' is stated twice: state each column once.")
    return {name: value for name, _, value in pairs}
