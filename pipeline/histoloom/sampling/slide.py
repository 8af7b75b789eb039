"""One whole slide: stated, woven, decoded and written as a pyramid."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from histoloom.canvas.blocks import CanvasPlan
from histoloom.canvas.decode import DecodeJob, read_bands
from histoloom.canvas.slide_mask import SlideMask, read_mask
from histoloom.cluster import one_thread
from histoloom.conditions.encode import captions_read
from histoloom.config import Params, WovenSlide
from histoloom.config.file_keys import GENERATED
from histoloom.data.commit import commit_part, write_json
from histoloom.data.pixel_box import PixelBox, cut
from histoloom.progress import progress
from histoloom.sampling.diffusion_model import sampling_facts
from histoloom.sampling.weaver import Canvas, Pools, Weaver, lay_canvas
from histoloom.slides.open import open_slide
from histoloom.slides.polygons import write_polygons
from histoloom.slides.pyramid import PyramidPicture, ReadBox, TiffFormat, level_sizes, write_pyramid
from histoloom.slides.woven import CONDITION, FACTS, NOTE, POLYGONS, SLIDE, THUMBNAIL


def weave_slide(slide: WovenSlide, weaver: Weaver, pool: Pools) -> Callable[[Path], SlideMetrics]:
    """Weave and decode a slide, its mask before it where that is generated; returns what writes it."""
    folder, title = weaver.root / "canvases" / weaver.part(slide), f"sample_slides: {slide.name}"
    masked, seconds = slide, {}
    if slide.mask == GENERATED:
        masked, seconds["weave_mask_s"] = _with_mask(slide, weaver, pool, folder / "mask")
    canvas, taken = woven(masked, weaver, pool, folder, title)
    seconds |= taken
    plan, written = canvas.job.plan, canvas.written
    facts = _facts(slide, weaver, plan) | written
    captions = {point["caption"] for row in written["points"] for point in row}
    read = captions_read(weaver.load().conditions, captions, title)

    def write(target: Path) -> SlideMetrics:
        _write_slide(target, masked, weaver.params, canvas.bands, folder / "levels")
        write_json(target / FACTS, facts)
        return {**seconds, **read, "blocks": plan.blocks.count, "canvas_latent_px": plan.blocks.canvas}

    return write


def woven(
    slide: WovenSlide, weaver: Weaver, pool: Pools, folder: Path, title: str, array: str = "image"
) -> tuple[Canvas, dict[str, float]]:
    """A slide's canvas, woven and decoded in a folder, and the seconds of each; what its image is inverted to is found first."""
    start, seconds = None, {}
    if slide.image and slide.image.inverted:
        start = lay_canvas(_as_it_was(slide, weaver), weaver, folder / "inverted", backwards=True)
        seconds["invert_s"] = start.weave(pool, f"{title}, inverted", decode=False)["weave_s"]
    canvas = lay_canvas(slide, weaver, folder, array, start=start)
    return canvas, seconds | canvas.weave(pool, title)


def _as_it_was(slide: WovenSlide, weaver: Weaver) -> WovenSlide:
    """The slide with the cohort of the slide that its image is of."""
    assert slide.image is not None, "it is begun from"
    return slide.model_copy(update={"cohort": weaver.own_cohort(slide.image.slide_id)})


def _with_mask(slide: WovenSlide, weaver: Weaver, pool: Pools, folder: Path) -> tuple[WovenSlide, float]:
    """The slide with the file of a mask that a model of masks made, and the seconds that this took."""
    assert weaver.masks is not None, "params name a model of masks before the last"
    bare = slide.model_copy(update={"mask": None, "outside": None})
    canvas = lay_canvas(bare, weaver.masks, folder, "mask")
    seconds = canvas.weave(pool, f"sample_slides: {slide.name}, mask")
    size, ids = (slide.height_px, slide.width_px), read_bands(canvas.bands)

    def write(target: Path) -> None:
        picture = PyramidPicture(lambda box: ids(cut(box, size)), size, weaver.params.tile.mpp)
        with progress(f"sample_slides: {slide.name}, mask's pyramid", _tiles(size, 256)) as advance:
            write_pyramid(target / CONDITION, picture, TiffFormat(256, "deflate"), scratch=target, advance=advance)

    with one_thread():
        commit_part(folder, "file", write)
    return slide.model_copy(update={"mask": str(folder / "file" / CONDITION)}), sum(seconds.values())


SlideMetrics = dict[str, float | int | tuple[int, int]]
"""How long a slide took, and what it was made of; as the stage's metrics state it."""


def _facts(slide: WovenSlide, weaver: Weaver, plan: CanvasPlan) -> dict:
    """What is known of a slide, its steps' offsets among it."""
    params, config = weaver.params, weaver.params.sample_slides
    return {
        "name": slide.name,
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp": params.tile.mpp,
        "classes": list(params.tile.masks.classes),
        "purpose": slide.purpose,
        "generator_sha256": weaver.identity(slide),
        "seed": plan.seed,
        "sampling": {
            "window_layout": config.window_layout,
            **sampling_facts(config, params.train_denoiser.conditions, weaver.load.device),
        },
        "label": slide.label,
        "canvas_latent_px": plan.blocks.canvas,
        "down_factor": params.factor,
        "steps": plan.log(),
    }


def _write_slide(target: Path, slide: WovenSlide, params: Params, bands: list[DecodeJob], scratch: Path) -> None:
    """Write the pyramid, its mask's pyramid and polygons where it has one, and a thumbnail."""
    config, size = params.sample_slides, (slide.height_px, slide.width_px)
    picture, mask = read_bands(bands), read_mask(slide, params, edges=False)

    def pixels(box: PixelBox[int]) -> np.ndarray:
        return picture(cut(box, size))

    count = _tiles(size, config.tile_px)
    scratch.mkdir(parents=True, exist_ok=True)
    with progress(f"sample_slides: {slide.name}, pyramid", count * (1 + (mask is not None))) as advance:
        write, mpp = partial(write_pyramid, scratch=scratch, advance=advance), params.tile.mpp
        form = TiffFormat(config.tile_px, config.compression, config.quality)
        write(target / SLIDE, PyramidPicture(pixels, size, mpp, NOTE), form)
        if mask is not None:
            write(target / CONDITION, PyramidPicture(_read_ids(mask), size, mpp), TiffFormat(config.tile_px, "deflate"))
            drawn = None if mask.raster is None else mask.ids(0, size[0])
            write_polygons(target / POLYGONS, mask.regions, drawn, mask.classes, size)
    with open_slide(target / SLIDE) as made:
        made.handle.get_thumbnail((config.thumbnail_px,) * 2).convert("RGB").save(target / THUMBNAIL, quality=90)


def _tiles(size: tuple[int, int], side: int) -> int:
    """How many tiles a pyramid of (height, width) has."""
    return sum(-(-h // side) * -(-w // side) for h, w in level_sizes(size, side))


def _read_ids(mask: SlideMask) -> ReadBox:
    """What `write_pyramid` reads of a mask."""

    @lru_cache(maxsize=1)  # a row of tiles is asked for from left to right
    def row_of_ids(top: int, height: int) -> np.ndarray:
        return mask.ids(top, height)

    def ids(box: PixelBox[int]) -> np.ndarray:
        box = cut(box, mask.size)
        return row_of_ids(box.top, box.height)[:, box.left : box.right, None]

    return ids
