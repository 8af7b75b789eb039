"""`histoloom convert`: a slide that histoloom wrote, in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from histoloom.errors import HistoloomError
from histoloom.progress import console

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("slide", type=_FILE)
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--labels", multiple=True, type=_FILE, help="A pyramid of class ids, such as condition.tif, that an .ome.zarr holds as labels."
)  # fmt: skip
def convert(slide: Path, target: Path, labels: tuple[Path, ...]) -> None:
    """Write SLIDE, a pyramid that histoloom wrote, to TARGET: an OME-TIFF (.ome.tif) or an OME-Zarr (.ome.zarr).

    Pixels stay the same. TARGET must not exist.
    """
    from histoloom.slides.convert import convert as write

    named = {path.stem: path for path in labels}
    if len(named) < len(labels):
        raise HistoloomError("Two labels have one name. Rename a file.")
    write(slide, target, named)
    console.print(f"{target}", markup=False)
