"""`histoloom sample`: tiles of a trained model, without a study, to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

import histoloom
from histoloom.cli.predict import fields
from histoloom.errors import HistoloomError
from histoloom.progress import console

if TYPE_CHECKING:
    from histoloom.sampling.tiles import Samples

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHEET, _ROWS = "sheet.png", "rows.csv"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="histoloom-base",
    show_default=True,
    help="Name of a packaged model, or the folder of a package or study.",
)
@click.option("-n", "count", default=8, show_default=True, type=click.IntRange(1), help="Number of tiles.")
@click.option("--seed", default=0, show_default=True, type=int, help="Another seed makes other tiles.")
@click.option(
    "--mask",
    type=_FILE,
    help="Picture with one channel, whose values are the model's class ids. Square, with the side of a tile or a whole multiple or fraction of it.",
)
@click.option("--text", help="A caption, in the words of the model's training.")
@click.option("--label", help="Class of the tiles, one that the model knows.")
@click.option("--cohort", multiple=True, metavar="COLUMN=VALUE", help="Site, scanner or data set that the model knows.")
@click.option(
    "--like", type=_FILE, help="Picture of a tile that the new tiles are to resemble, as large as the model's tiles."
)
@click.option(
    "--mpp", type=float, help="Scale, µm/px; by default, the model's first. With --like, state the scale of that tile."
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps of the sampler; by default, those of the model's updates for few steps if it has them, else 20.",
)
@click.option(
    "--guidance",
    type=click.FloatRange(min=0),
    help="Guidance scale: how strongly the conditions are followed. If it is given, updates for few steps are not used.",
)
def sample(
    folder: Path,
    model: str,
    count: int,
    seed: int,
    steps: int | None,
    guidance: float | None,
    mask: Path | None,
    text: str | None,
    label: str | None,
    cohort: tuple[str, ...],
    like: Path | None,
    mpp: float | None,
) -> None:
    """Make tiles to look at, without a study.

    FOLDER gets a PNG for each tile, and sheet.png with all of them. rows.csv says how each was made: seed, conditions, model, sampler, version.
    For a training set, make a study: histoloom init.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HistoloomError(f"{folder} is not an empty folder. Name a new one, so that nothing is overwritten.")
    _check_files(model, mask, like)
    from histoloom.api import few_steps_of, load  # which load torch
    from histoloom.config import Sample
    from histoloom.sampling.diffusion_model import generator_sha256

    known = few_steps_of(model)
    few = known is not None and guidance is None and steps in (None, known)
    stated = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    loaded = load(model, few_steps=few)
    settings = Sample.model_validate(stated) if stated and not few else loaded.settings
    console.print(
        f"{model}: {count} tiles, {settings.steps} steps of {settings.scheduler}, on {loaded.device}", markup=False
    )
    samples = loaded.sample(
        count, seed, mask=mask, text=text, label=label, like=like, mpp=mpp, cohort=fields(cohort), settings=settings
    )
    write(samples, folder, {
        "run_seed": seed, "model": model, "generator_sha256": generator_sha256(loaded.folder), "few_steps": few,
        "scheduler": settings.scheduler, "steps": settings.steps, "guidance": settings.guidance,
        "device": loaded.device, "histoloom": histoloom.__version__,
    })  # fmt: skip
    console.print(f"{folder / _SHEET} shows all tiles, {folder / _ROWS} says how each was made", markup=False)


def _check_files(model: str, mask: Path | None, like: Path | None) -> None:
    """Refuse pictures of another size before the model is loaded, which takes seconds."""
    from histoloom.data.model_folder import folder_of, tile_px_of
    from histoloom.sampling.given_pictures import check_files

    px = tile_px_of(folder_of(model))
    if px is not None:
        check_files(mask, like, px)


def write(samples: Samples, folder: Path, facts: Mapping[str, object]) -> None:
    """Write tiles, their sheet and their rows. facts : columns that all rows have alike."""
    import numpy as np

    from histoloom.report.pictures import contact_sheet

    folder.mkdir(parents=True, exist_ok=True)
    names = [f"tile-{number:04d}.png" for number in range(len(samples.images))]
    for name, image in zip(names, samples.images):
        image.save(folder / name)
    contact_sheet(np.stack([np.asarray(image) for image in samples.images])).save(folder / _SHEET)
    rows = samples.rows.assign(**facts)
    rows.insert(0, "file", names)
    rows.to_csv(folder / _ROWS, index=False, lineterminator="\n")
