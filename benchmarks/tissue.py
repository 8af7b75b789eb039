"""How well the tissue of slides is found, by the pipeline's way and by others that are in use.

Slides are made of pictures of real tissue, or of drawn ones with --smoke, and of what scanners and people add to them: padding,
pen, dust, dim glass, pale and blurred tissue. Where the tissue is, is known. On real tiles the share of background is compared with
the stated one; on real sections, tiles are counted that the pipeline's way takes and plain Otsu does not, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter
from skimage.color import rgb2hsv, rgb2lab
from skimage.filters import threshold_li, threshold_otsu, threshold_triangle
from skimage.morphology import remove_small_objects

from benchmarks.inputs import real_data
from benchmarks.run import arguments, report, seconds
from histoloom.config.tile import Tissue
from histoloom.slides.focus import sharpness
from histoloom.slides.grid import grid
from histoloom.slides.open import open_slide
from histoloom.slides.tissue import TissueMap, find_tissue, read_whole

MPP, COARSER, SIDE_PX = 2.0, 4, 1024
CONFIG = Tissue(mpp=MPP * COARSER)
BLUES, GLASS = {"blue": (20, 30, 160), "royal_blue": (40, 90, 210)}, (245, 244, 246)
PENS = BLUES | {"green": (10, 110, 60), "red": (200, 25, 40), "black": (25, 24, 28), "violet": (110, 20, 170)}
Picture = np.ndarray
Method = Callable[[Picture], np.ndarray]


def density(picture: Picture) -> np.ndarray:
    return -np.log10((picture.astype(np.float32).mean(-1) + 1) / 256)


def _above(values: np.ndarray, threshold: float) -> np.ndarray:
    return remove_small_objects(values > threshold, max_size=int(CONFIG.min_area_um2 / CONFIG.mpp**2) - 1)


def _otsu(values: np.ndarray) -> np.ndarray:
    return _above(values, threshold_otsu(values))


METHODS: dict[str, Method] = {
    "pipeline": lambda p: find_tissue(p, COARSER, MPP, CONFIG).mask,
    "density_otsu_0.6": lambda p: _above(density(p), max(0.6 * threshold_otsu(density(p)), CONFIG.min_od)),
    "density_otsu": lambda p: _otsu(density(p)),
    "density_triangle": lambda p: _above(density(p), threshold_triangle(density(p))),
    "density_li": lambda p: _above(density(p), threshold_li(density(p))),
    "saturation_otsu": lambda p: _otsu(median_filter(rgb2hsv(p)[..., 1], 5)),
    "lab_chroma_otsu": lambda p: _otsu(np.hypot(*np.moveaxis(rgb2lab(p)[..., 1:], -1, 0))),
}
"""The three of Otsu alone are how most tools find tissue: on grey values, on saturation, on chroma."""


def drawn_texture(seed: int) -> Picture:
    """Tissue in H&E's colours (SIDE_PX, SIDE_PX, 3)."""
    rng = np.random.default_rng(seed)
    amounts = np.stack(
        [gaussian_filter(rng.standard_normal((SIDE_PX, SIDE_PX)), s, mode="wrap") for s in (1.5, 12)], -1
    )
    amounts = np.clip(0.45 + 0.2 * amounts / amounts.std((0, 1)), 0.1, None)
    return (245 * 10 ** -(amounts @ [[0.45, 0.5, 0.2], [0.1, 0.6, 0.2]])).astype(np.uint8)


def real_textures() -> dict[str, Picture]:
    """Tissue of several laboratories at MPP, tiles mirrored to a square."""
    found = {}
    table = pd.read_csv(real_data() / "camelyon16_tiles/tiles.csv")
    table = table[(table["background_fraction"] < 0.1) & (table["laplacian_sd"] > 12)]
    for slide, rows in table.groupby("slide_id"):
        tiles = [_at_mpp(Image.open(real_data() / "camelyon16_tiles" / p), 0.25) for p in rows["path"][:64]]
        found[slide] = _mosaic(tiles)
    images = pd.read_csv(real_data() / "monuseg/images.csv")
    for organ, rows in images.groupby("organ"):
        found[organ] = _mosaic([_at_mpp(Image.open(real_data() / "monuseg" / p), 0.25) for p in rows["image"]])
    return found


def _at_mpp(picture: Image.Image, mpp: float) -> Picture:
    size = [int(side * mpp / MPP) for side in picture.size]
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX))


def _mosaic(tiles: list[Picture]) -> Picture:
    side = tiles[0].shape[0]
    count = -(-SIDE_PX // side)
    rows = [np.hstack([tiles[(r * count + c) % len(tiles)][:side, :side] for c in range(count)]) for r in range(count)]
    return np.vstack(rows)[:SIDE_PX, :SIDE_PX]


def _stained(texture: Picture, strength: np.ndarray | float) -> Picture:
    """The same tissue with more or less stain."""
    light = (texture.astype(np.float32) + 1) / 256
    return (256 * light ** np.broadcast_to(strength, texture.shape[:2])[..., None] - 1).clip(0, 255).astype(np.uint8)


def _jpeg(picture: Picture) -> Picture:
    file = BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=60)
    return np.asarray(Image.open(file))


def made_slides(texture: Picture) -> Iterator[tuple[str, Picture, np.ndarray]]:
    """Kind, picture at MPP and where its tissue is."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    inside = np.hypot((x - 0.42) / 0.3, (y - 0.5) / 0.38) < 1
    glass = np.broadcast_to(np.array(GLASS, np.uint8), texture.shape)

    def slide(tissue: Picture = texture, ground: Picture = glass, where: np.ndarray = inside) -> Picture:
        return np.where(where[..., None], tissue, ground)

    nothing, everything = np.zeros_like(inside), np.ones_like(inside)
    yield "plain", slide(), inside
    yield "pale", slide(_stained(texture, 0.5)), inside
    yield "pale_beside_dark", slide(_stained(texture, np.where(x < 0.42, 0.5, 2))), inside
    yield "blurred", slide(gaussian_filter(texture, (2, 2, 0))), inside
    yield "no_glass", slide(where=everything), everything
    yield "all_glass", glass, nothing
    dim = np.full_like(texture, (196, 196, 198))
    yield "dim_glass", slide((texture * 0.8).astype(np.uint8), dim), inside
    yield "all_dim_glass", dim, nothing
    right = (x > 0.8)[..., None]
    for name, colour in {"black": (0, 0, 0), "grey": (128, 128, 128), "blue": (150, 180, 230)}.items():
        padded = np.where(right, np.array(colour, np.uint8), slide())
        yield f"padding_{name}", padded, inside
        yield f"padding_{name}_jpeg", _jpeg(padded), inside
    dust = gaussian_filter(((x - 0.85) ** 2 + (y - 0.5) ** 2 < 0.003).astype(np.float32), 12)[..., None]
    yield "dust_out_of_focus", (slide() * (1 - 0.4 * dust)).astype(np.uint8), inside
    for place, centre in {"beside": 0.85, "over": 0.42}.items():
        stroke = (np.abs(x - centre - 0.03 * np.sin(9 * y)) < 0.045) & (y > 0.15) & (y < 0.85)
        amount = gaussian_filter(stroke.astype(np.float32), 3)[..., None]
        for name, ink in PENS.items():
            marked = slide() * (np.array(ink) / 255) ** amount
            yield f"pen_{name}_{place}", marked.astype(np.uint8), inside & ~stroke


def agreement(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union; of nothing in nothing, 1."""
    return float((found & truth).sum() / max((found | truth).sum(), 1)) if (found | truth).any() else 1.0


def coarse(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).reduce(COARSER))


def measure_made(textures: dict[str, Picture], pictures: Path | None) -> tuple[dict, dict]:
    """By method: the mean agreement, and the share of kinds of slide whose median over the textures is 0.9 or more; and the medians."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in METHODS}
    for texture_name, texture in textures.items():
        for kind, picture, truth in made_slides(texture):
            small = coarse(picture)
            true = coarse(np.repeat(truth[..., None], 3, -1).astype(np.uint8) * 255)[..., 0] > 127
            masks = {name: method(small) for name, method in METHODS.items()}
            for name, mask in masks.items():
                found[name].setdefault(kind, []).append(agreement(mask, true))
            if pictures is not None:
                _draw(pictures / f"{texture_name}_{kind}.png", small, masks)
    keys, details = {}, {}
    for name, kinds in found.items():
        medians = {kind: float(np.median(values)) for kind, values in kinds.items()}
        keys[f"{name}.agreement"] = float(np.mean([v for values in kinds.values() for v in values]))
        keys[f"{name}.kinds_found"] = sum(value >= 0.9 for value in medians.values()) / len(medians)
        details |= {f"{name}.{kind}": value for kind, value in medians.items()}
    return keys, details


def _draw(path: Path, picture: Picture, masks: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tinted = [np.where(mask[..., None], picture, picture // 3) for mask in masks.values()]
    Image.fromarray(np.hstack([picture, *tinted])).save(path)


def measure_backgrounds() -> dict:
    """By method, the mean absolute error of a tile's share of background; a slide's tiles are thresholded together."""
    table = pd.read_csv(real_data() / "camelyon16_tiles/tiles.csv")
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    for _, rows in table.groupby("slide_id"):
        tiles = [_at_mpp(Image.open(real_data() / "camelyon16_tiles" / p), 0.25) for p in rows["path"]]
        tiles = [coarse(tile) for tile in tiles]
        side = tiles[0].shape[0]
        stack = np.concatenate(tiles)
        for name, method in METHODS.items():
            fractions = 1 - method(stack).reshape(len(tiles), side, -1).mean((1, 2))
            errors[name] += np.abs(fractions - rows["background_fraction"]).tolist()
    return {f"{name}.background_error": float(np.mean(values)) for name, values in errors.items()}


def measure_sections() -> dict:
    """Tiles of her2st that plain Otsu takes and the pipeline does not, and the other way round; and seconds a section."""
    lost = won = taken = 0
    times = []
    for path in sorted((real_data() / "her2st/slides").glob("*.tif")):
        with open_slide(path, None) as slide:
            downsample = CONFIG.mpp / slide.mpp
            picture = read_whole(slide, downsample)
            corners = np.array(list(grid(slide.width, slide.height, 128, 128)), float)
            times.append(seconds(partial(find_tissue, picture, downsample, slide.mpp, CONFIG)).wall)
            ours, before = (
                TissueMap(METHODS[name](picture), downsample, picture).fractions(corners, 128) >= CONFIG.min_fraction
                for name in ("pipeline", "density_otsu_0.6")
            )
        lost, won, taken = lost + (before & ~ours).sum(), won + (ours & ~before).sum(), taken + before.sum()
    return {
        "sections.tiles_lost": float(lost / taken),
        "sections.tiles_won": float(won / taken),
        "sections.seconds": float(np.median(times)),
    }


def measure_focus() -> dict:
    """Share of tiles that count as out of focus: as they are, and blurred by 2 µm."""
    limit, kinds = CONFIG.min_sharpness, {"as_they_are": 0.0, "blurred_2_um": 2.0}
    table = pd.read_csv(real_data() / "camelyon16_tiles/tiles.csv")
    table = table[table["background_fraction"] < 0.5]
    sets = {
        "camelyon": [(real_data() / "camelyon16_tiles" / p, 0.25) for p in table["path"][::4]],
        "camelyon_blurred": [
            (real_data() / "camelyon16_tiles" / p, 0.25) for p in table["path"][table["laplacian_sd"] < 5.7]
        ],
        "monuseg": [(p, 0.25) for p in sorted((real_data() / "monuseg/images").iterdir())],
        "tnbc": [(p, 0.25) for p in sorted((real_data() / "tnbc/images").iterdir())],
    }
    out = {}
    for name, files in sets.items():
        for kind, sigma_um in kinds.items():
            tiles = [(np.asarray(Image.open(path).convert("RGB")), mpp) for path, mpp in files]
            tiles = [(gaussian_filter(tile, (sigma_um / mpp,) * 2 + (0,)), mpp) for tile, mpp in tiles]
            out[f"focus.{name}.{kind}"] = float(np.mean([sharpness(tile, mpp) < limit for tile, mpp in tiles]))
    return out


def main() -> None:
    options = arguments(__doc__, pictures="a picture of each made slide and of each method's mask goes here")
    textures = {f"drawn{seed}": drawn_texture(seed) for seed in range(2)} if options.smoke else real_textures()
    keys, details = measure_made(textures, options.pictures)
    if not options.smoke:
        keys |= measure_backgrounds() | measure_sections() | measure_focus()
    sizes = {"textures": len(textures), "side_px": SIDE_PX, "mpp": MPP, "coarse_mpp": CONFIG.mpp}
    report("tissue", options.smoke, sizes, keys, details, options.json)


if __name__ == "__main__":
    main()
