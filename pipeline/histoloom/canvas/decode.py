"""A finished canvas to pixels, band by band and tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from histoloom.canvas.weaving import CanvasJob, Latents
from histoloom.cluster import uses_torch
from histoloom.data.commit import commit_part
from histoloom.data.pixel_box import PixelBox
from histoloom.slides.pyramid import RasterFile
from histoloom.targets.target import Raster

ReadLatents = Callable[[PixelBox[int]], np.ndarray]


TILE, HALO = 128, 8
"""Side of what is decoded at once, and what is blended on each side of it, latent px."""
BAND = TILE
"""Rows of one task, latent px: one row of tiles, so that small slides take all workers too."""
PIXELS = "pixels"


def decode_rows(
    read: ReadLatents, target: Raster, rows: slice, width: int, write: Callable[..., None], array: str = "image"
) -> None:
    """Decode latent rows of a canvas to one of the arrays that the target makes.

    A decoder without normalisation gives each tile the pixels that it would have in the whole, given a halo as wide as
    a latent pixel reaches. Where it normalises, neighbouring tiles differ, and are blended over twice the halo.

    Parameters
    ----------
    read : a box of the canvas, latent px, to latents (c, h, w); a canvas is a torus.
    write : called with pixels (h, w, channels), and `left` and `top` of their corner, px counted from the first row.
    """
    halo, factor = target.reach, target.factor
    for top in range(rows.start, rows.stop, TILE):
        height = min(TILE, rows.stop - top)
        for left in range(0, width, TILE):
            box = PixelBox(left, top, min(TILE, width - left), height)
            pixels = _blended(read, target, box) if halo is None else _plain(read, target, box, halo, array)
            write(pixels, left=left * factor, top=(top - rows.start) * factor)


def _plain(read: ReadLatents, target: Raster, box: PixelBox[int], halo: int, array: str) -> np.ndarray:
    latents = read(PixelBox(box.left - halo, box.top - halo, box.width + 2 * halo, box.height + 2 * halo))
    pixels, factor = target.decode(torch.from_numpy(latents)[None])[array][0], target.factor
    inside = halo * factor
    own = pixels[inside : inside + box.height * factor, inside : inside + box.width * factor]
    return own if own.ndim == 3 else own[..., None]


def _blended(read: ReadLatents, target: Raster, box: PixelBox[int]) -> np.ndarray:
    """The pixels of a box from the tiles that lie over it, each fading out over its halo.

    Tiles lie on one grid over the whole canvas, so that a box next to this one sees the same tiles.
    """
    (left, top, width, height), factor = box, target.factor
    total = np.zeros((height * factor, width * factor, 3), np.float32)
    weights = np.zeros((height * factor, width * factor, 1), np.float32)
    side = TILE + 2 * HALO
    ramp = np.minimum(
        1, (np.minimum(np.arange(side * factor), np.arange(side * factor)[::-1]) + 0.5) / (2 * HALO * factor)
    )
    for y in range((top // TILE - 1) * TILE, top + height + TILE, TILE):
        for x in range((left // TILE - 1) * TILE, left + width + TILE, TILE):
            y0, x0 = y - HALO - top, x - HALO - left
            ys, xs = (slice(max(0, o), min(n, o + side)) for o, n in ((y0, height), (x0, width)))
            if ys.start >= ys.stop or xs.start >= xs.stop:
                continue
            latents = torch.from_numpy(read(PixelBox(x - HALO, y - HALO, side, side)))
            pixels = target.decode(latents[None])["image"][0]
            into = np.s_[ys.start * factor : ys.stop * factor, xs.start * factor : xs.stop * factor]
            rows, columns = (slice((s.start - o) * factor, (s.stop - o) * factor) for s, o in ((ys, y0), (xs, x0)))
            weight = np.outer(ramp[rows], ramp[columns])[..., None].astype(np.float32)
            total[into] += weight * pixels[rows, columns]
            weights[into] += weight
    return (total / weights).round().astype(np.uint8)


@dataclass(frozen=True)
class DecodeJob:
    """One band of a canvas to pixels; plain data.

    height, width : of the slide, latent px.
    load : gives the target that decodes; called for each band.
    factor : pixels to a latent pixel.
    array : what is decoded: `image`, or the `mask` of class ids.
    """

    canvas: CanvasJob
    number: int
    height: int
    width: int
    load: Callable[[], Raster]
    factor: int
    parts: Path
    array: str = "image"

    @property
    def part(self) -> str:
        return f"band-{self.number:05d}"

    @property
    def rows(self) -> slice:
        return slice(self.number * BAND, min((self.number + 1) * BAND, self.height))

    @property
    def raster(self) -> RasterFile:
        rows = self.rows.stop - self.rows.start
        channels = 3 if self.array == "image" else 1
        return RasterFile(self.parts / self.part / PIXELS, rows * self.factor, self.width * self.factor, channels)


@uses_torch
def decode_band(job: DecodeJob) -> None:
    """Decode one band, unless it is there."""
    commit_part(job.parts, job.part, lambda folder: _write_band(job, folder))


def _write_band(job: DecodeJob, folder: Path) -> None:
    raster = replace(job.raster, path=folder / PIXELS).create()
    decode_rows(Latents(job.canvas).read, job.load(), job.rows, job.width, raster.write, job.array)


def read_bands(jobs: list[DecodeJob]) -> Callable[[PixelBox[int]], np.ndarray]:
    """The whole picture: a box in px, which may reach over several bands, to pixels (h, w, 3)."""
    rasters, rows = [job.raster for job in jobs], BAND * jobs[0].factor

    def read(box: PixelBox[int]) -> np.ndarray:
        out, top, bottom = [], box.top, min(box.bottom, sum(r.height for r in rasters))
        while top < bottom:
            number, within = divmod(top, rows)
            out.append(rasters[number].read(PixelBox(box.left, within, box.width, bottom - top)))
            top += len(out[-1])
        return np.concatenate(out)

    return read
