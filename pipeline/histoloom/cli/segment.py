"""`histoloom segment`: masks of a slide by its stain, without a study."""

from __future__ import annotations

from pathlib import Path

import click

from histoloom.progress import console


@click.command()
@click.argument("slide", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--mpp", type=float, required=True, help="Scale of the masks, µm/px.")
@click.option(
    "--box", type=int, nargs=4, metavar="X Y W H", help="A region, in level-0 pixels; by default, the scanned part."
)
@click.option("--slide-mpp", type=float, help="The slide's own scale, µm/px, if its file doesn't state it.")
def segment(
    slide: Path, folder: Path, mpp: float, box: tuple[int, int, int, int] | None, slide_mpp: float | None
) -> None:
    """Find nuclei and clear space of SLIDE by their stain.

    FOLDER gets mask.png (1 nuclei, 2 clear space), instances.png and overlay.jpg.
    """
    from histoloom.data.pixel_box import PixelBox
    from histoloom.slides.segment import segment_slide

    found = segment_slide(slide, ("nucleus", "clear"), mpp, PixelBox(*box) if box else None, folder, slide_mpp)
    console.print(f"{folder}: {found.width} x {found.height} px, {found.nuclei} nuclei; look at overlay.jpg")
