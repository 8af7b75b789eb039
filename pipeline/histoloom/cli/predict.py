"""`histoloom predict`: masks of a slide by a learner that was trained, without a study."""

from __future__ import annotations

from pathlib import Path

import click

from histoloom.progress import console


@click.command()
@click.argument("slide", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="models/filters of a study whose filters look at masks, or the models of one whose denoiser makes masks of pictures.",
)  # fmt: skip
@click.option(
    "--slide-mpp",
    type=click.FloatRange(min=0, min_open=True),
    help="The slide's own scale, µm/px, if its file doesn't state it.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda.")
def predict(slide: Path, folder: Path, model: Path, slide_mpp: float | None, device: str) -> None:
    """Find the classes of masks in SLIDE.

    FOLDER gets mask.tif (class ids) and certainty.tif (255 is sure, 0 where there is no tissue), pyramids that QuPath opens, and mask.geojson, for QuPath to import. Ctrl-C
    stops it, and the same command goes on.
    """
    from histoloom.learners.kept import load_kept
    from histoloom.learners.slide import predict_slide
    from histoloom.slides.open import open_slide

    kept = load_kept(model, device)
    with open_slide(slide, slide_mpp) as opened:
        found = predict_slide(opened, kept, model, folder)
    if not found.has_tissue:
        console.print(f"predict: no tissue was found in {slide.name}, so nothing was looked at", markup=False)
    regions = ", ".join(f"{count:,} of {name}" for name, count in found.regions.items())
    console.print(
        f"{folder}: {found.width} x {found.height} px at {found.mpp:g} µm/px; regions: {regions}", markup=False
    )
