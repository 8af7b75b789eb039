"""What is stated of the canvases that benchmarks weave: their sizes, and the masks of squares of a section that no model saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.packaged import DATASET
from benchmarks.run import chip
from benchmarks.studies import Study
from histoloom.canvas import torus
from histoloom.canvas.condition_grid import ConditionGrid
from histoloom.canvas.inputs import RegionInputs
from histoloom.canvas.step import WindowDenoiser
from histoloom.conditions.batch import Conditions, cat
from histoloom.conditions.encode import batch
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.mask import mask_map
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.commit import read_record
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_fields import written
from histoloom.data.study_folder import Study as StudyFolder
from histoloom.errors import HistoloomError
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import DiffusionModel, generator_sha256, load_diffusion_model, no_tiles

STATED = ("magnification", "cohort")


@dataclass(frozen=True)
class Sizes:
    """window : latent px; halo : latent px, a sixteenth of it. cells : cells of the lattice along a canvas, which is whole windows long
    too. factor : pixels to a latent pixel. canvases : of a window layout; of those that take several times as long, `fewer`. batch_size : of
    what is timed; what is counted is counted a row of windows at a time, so that no batch is padded. crops : of a class, for the
    classifier.
    """

    window: int = 32
    halo: int = 2
    cells: int = 16
    factor: int = 4
    canvases: int = 6
    fewer: int = 2
    steps: tuple[int, ...] = (20, 4)
    batch_size: int = 16
    rounds: int = 200
    crops: int = 1200
    judge_steps: int = 400
    kid_crops: int = 1200

    @property
    def cell(self) -> int:
        return self.window - 2 * self.halo

    @property
    def side(self) -> int:
        """Of a canvas, latent px."""
        return self.cells * self.cell


FULL = Sizes()
SMALL = Sizes(
    window=8, cells=8, factor=4, canvases=2, fewer=2, steps=(4,), batch_size=4, rounds=20, crops=64, judge_steps=4, kid_crops=32,
)  # fmt: skip


@dataclass(frozen=True)
class Square:
    """A square of a section that its tiles cover whole.

    mask : (2h, 2w) of class ids, the square's mirrored to a canvas, so that on a torus it has no border of its own.
    tiles : (n, t, t, 3) uint8, all that lie inside the square.
    """

    mask: np.ndarray
    tiles: np.ndarray

    @cached_property
    def features(self) -> np.ndarray:
        """Of its tiles, for KID; taken once for all layouts."""
        return load_extractor("efficientnet-lite0", chip()).features(self.tiles)


def squares(study: Study, sizes: Sizes) -> list[Square]:
    """Squares of held-out sections half as long as a canvas, that share no pixel, one for each canvas.

    Raises
    ------
    HistoloomError
        when there are fewer.
    """
    store, tile, out = study.tiles, study.params["tile"], []
    half = sizes.side * sizes.factor // 2
    per_tile, reach = tile["tile_px"] // tile["stride_px"], half // tile["tile_px"] - 1
    rows = store.rows()
    for part, members in rows[rows["split"] == "val"].groupby("part"):
        level0 = tile["mpp"] / read_record(store.folder / part)["info"]["mpp_level0"] * tile["stride_px"]
        places = (members[["y_level0_px", "x_level0_px"]] / level0).round().astype(int)
        index = dict(zip(places.itertuples(index=False, name=None), members.index))
        free, span = set(index), range(reach * per_tile + 1)
        around = range(1 - per_tile, len(span) + per_tile - 1)  # tiles that show anything of a square
        for y, x in sorted(index):
            inside = [(y + i, x + j) for i in span for j in span]
            if not free.issuperset(inside):
                continue
            free.difference_update((y + i, x + j) for i in around for j in around)
            chosen = members.loc[[index[place] for place in inside]]
            apart = [(y + i, x + j) for i in span[::per_tile] for j in span[::per_tile]]
            masks = store.read(members.loc[[index[place] for place in apart]], "mask")
            ids = masks.reshape(reach + 1, reach + 1, *masks.shape[1:]).swapaxes(1, 2).reshape(half, half)
            out.append(Square(np.pad(ids, (0, half), mode="symmetric"), store.read(chosen)))
    if len(out) < sizes.canvases:
        raise HistoloomError(f"The held-out sections have {len(out)} whole squares, and {sizes.canvases} are wanted.")
    return out[: sizes.canvases]


@dataclass(frozen=True)
class Open:
    """What is stated of a canvas of which all is to be made: a map (c, h, w) or none, and the row `given`, the nulls where it is None."""

    channels: int
    nulls: Conditions
    map: np.ndarray | None = None
    given: Conditions | None = None

    def start(self, box: PixelBox[int]) -> None:
        """It begins from noise."""

    def region(self, box: PixelBox[int]) -> RegionInputs:
        size = box.height, box.width
        points = replace(cat([self.given or self.nulls, self.nulls]), map=None)
        grid = ConditionGrid(points, torch.zeros(1, 1, dtype=torch.int64), (1.0, 1.0))
        if self.map is None:
            given = np.zeros((self.nulls.map.shape[1], *size), np.float16)
        else:
            canvas = self.map.shape[1:]
            given = torus.read(lambda rows, columns: self.map[:, rows, columns], box, canvas)
        fixed = torch.zeros(self.channels, *size)
        return RegionInputs(np.ones(size, bool), fixed, torch.from_numpy(given), grid, box, size)


@dataclass(frozen=True)
class LoadOpen:
    """A study's denoiser, and a canvas of which all is to be made, under no condition; what a worker calls.

    masked : whether a map will be given, and with it the study's scale and cohort, where the model knows them; no guidance is, so that a
        step takes one forward.
    """

    models: Path
    steps: int
    window: int
    batch_size: int
    masked: bool = False

    def __call__(self) -> tuple[WindowDenoiser, Open]:
        model = self.model
        solver, nulls = make_solver("ddim", model.process, self.steps), model.nulls(self.window, self.window)
        scale = (lambda name: float(name in ("mask", *STATED))) if self.masked else (lambda _: 0.0)
        denoiser = WindowDenoiser(model.predictor(lambda level: scale), nulls, solver, self.batch_size, chip())
        return denoiser, Open(model.target.channels, nulls, given=self.stated(model, nulls))

    @property
    def model(self) -> DiffusionModel:
        return load_diffusion_model(self.models, generator_sha256(self.models), "auto", chip(), "bf16")

    def stated(self, model: DiffusionModel, nulls: Conditions) -> Conditions:
        """The nulls, but for the study's scale and cohort, where the model knows them."""
        row = pd.DataFrame(
            {"mpp": [StudyFolder(self.models.parent).params.tile.mpp], "cohort": [written({"dataset": DATASET})]}
        )
        vectors = tuple(spec for spec in model.specs if spec.shape == "vector")
        arrays = {spec.name: np.zeros((1, spec.size), np.float32) for spec in vectors}
        for condition in (c for c in model.conditions.conditions if c.name in STATED):
            arrays |= condition.arrays(row, no_tiles)
        return replace(nulls, vector=batch(arrays, vectors, np.zeros(1, np.int64)).vector)


def map_of(mask: np.ndarray, specs: tuple[ConditionSpec, ...], sizes: Sizes) -> np.ndarray:
    """The map (c, h, w) of a mask, for a denoiser of these conditions."""
    channels = next(spec.channels for spec in specs if spec.name == "mask")
    return mask_map(mask[None], None, channels, sizes.side, sizes.side)[0]
