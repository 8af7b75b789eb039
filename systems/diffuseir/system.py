"""DiffuseIR: slices along the optical axis, of which some rows are known, filled by a model of slices across it, beside bicubic interpolation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree
from torch.nn import functional as F

from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.fidelity import fidelity, psnr_inside
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
EVERY, SIDE = 4, 32
"""Of how many rows one is known; px of a tile."""
_SET, _TRUTH = "data/slices.npz", "data/truth.npy"
_VOLUMES, _HELD_OUT, _DEPTH, _CELLS = 12, 4, 2 * SIDE, 60
_GUARD = 32
"""Columns between train and test regions of real sections, px."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn volumes, of which test ones lack planes; or em_stack, of whose sections rows are taken away where they are tested on."""
    slices = _drawn() if data is None else _sections(data)
    parts = [(name, *_reduced(one)) if name.startswith("test") else (name, *_whole(one)) for name, one in slices]
    names = np.concatenate([np.repeat(name, len(tiles)) for name, tiles, _, _ in parts])
    images, masks, truth = (np.concatenate(of) for of in zip(*(arrays for _, *arrays in parts)))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    ids, splits = np.arange(len(images)).astype(str), np.array([re.sub("[^a-z].*", "", name) for name in names])
    np.savez(folder / _SET, images=images, masks=masks, tile_id=ids, patient_id=names, split=splits)
    np.save(folder / _TRUTH, truth)


Slices = list[tuple[str, np.ndarray]]
"""Each with its group, which begins with its split: pictures (h, w) uint8. Those to test on end with a row that is known."""


def _whole(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles of a slice that lacks nothing, masks without anything, and the same tiles."""
    tiles = _cut(picture)
    return tiles, np.zeros_like(tiles), tiles


def _reduced(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles of a slice of whose rows one of four is known and the others are interpolated, which these are, and the truth."""
    between = np.ones_like(picture)
    between[::EVERY] = 0
    return _cut(along(picture[::EVERY], "bicubic")[:-1]), _cut(between[:-1]), _cut(picture[:-1])


def along(known: np.ndarray, mode: str) -> np.ndarray:
    """Known rows (n, w) uint8 and what lies between them, ((n - 1) EVERY + 1, w). mode : bicubic or bilinear."""
    size = (EVERY * (len(known) - 1) + 1, known.shape[1])
    found = F.interpolate(torch.from_numpy(known)[None, None].float(), size, mode=mode, align_corners=True)
    return found[0, 0].clamp(0, 255).round().byte().numpy()


def _cut(picture: np.ndarray) -> np.ndarray:
    """(h, w) to the tiles that fit into it, (n, SIDE, SIDE)."""
    down, across = (side // SIDE for side in picture.shape)
    whole = picture[: down * SIDE, : across * SIDE].reshape(down, SIDE, across, SIDE)
    return whole.swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def _drawn() -> Slices:
    """Slices across the axis of seven train and one val volume, and along the axis of four that are held out."""
    out = []
    for number in range(_VOLUMES):
        volume = _volume(np.random.default_rng(number))
        if number >= _VOLUMES - _HELD_OUT:
            out += [(f"test{number}", volume[:, at]) for at in range(12, _DEPTH, 20)]
        else:
            out += [(f"{'train' if number else 'val'}{number}", plane) for plane in volume[1:_DEPTH:2]]
    return out


def _volume(rng: np.random.Generator) -> np.ndarray:
    """Cells with dark membranes and dark bodies in them, (z, y, x) uint8; as fine along each axis."""
    side = _DEPTH + 1
    places = np.indices((side, side, side)).reshape(3, -1).T
    centres = rng.uniform(-8, side + 8, (_CELLS, 3))
    near, of = KDTree(centres).query(places, 2)
    light = rng.uniform(150, 205, _CELLS)[of[:, 0]]
    bodies = rng.uniform(0, side, (_CELLS // 2, 3))
    away, body = KDTree(bodies).query(places)
    dark = away < rng.uniform(2.5, 5.0, len(bodies))[body]
    light = np.where(dark, 95.0, light)
    light[near[:, 1] - near[:, 0] < 1.8] = 55.0
    grain = gaussian_filter(rng.standard_normal((side,) * 3), 1.0)
    volume = gaussian_filter(light.reshape((side,) * 3), 0.7) + 6 * grain / grain.std()
    return (volume + rng.normal(0, 2.0, volume.shape)).clip(0, 255).astype(np.uint8)


def _sections(data: Path) -> Slices:
    """Sections at half their scale. The left of the first six is learnt, of which one is val; the right of the last two is tested on, in bands."""
    with np.load(data / "sections.npz") as held:
        raw = held["raw"].astype(np.float32)
    n, h, w = raw.shape
    half, middle = raw.reshape(n, h // 2, 2, w // 2, 2).mean((2, 4)).round().astype(np.uint8), w // 4
    out = [(f"{'train' if number < n - 3 else 'val'}{number}", half[number, :, :middle]) for number in range(n - 2)]
    for number in (n - 2, n - 1):
        for top in range(0, h // 2 - SIDE, 4 * SIDE):
            out.append((f"test{number}-{top}", half[number, top : top + 2 * SIDE + 1, middle + _GUARD :]))
    return out


def measure(studies: list[Study]) -> Measured:
    """PSNR of the rows between known ones, in held-out slices: of the mean of four samples, beside bicubic interpolation."""
    (study,) = studies
    rows, store = _predicted(study), TileStore(study.predicted)
    found = {name: _scores(study, own, store.read(own)) for name, own in rows.items()}
    bicubic = study.real().read(_tiles(study, rows["refined"]))
    for name, made in (("bicubic", bicubic), ("linear", _linear(bicubic))):
        found[name] = _scores(study, rows["refined"], made)
    kept = np.mean([scores["kept"].mean() for scores in found.values()])
    assert kept == 1, "a known row changed"
    ours = found["refined"]
    more = {f"{of}_{name}": scores[of].mean() for of in ("psnr", "ssim", "fsim") for name, scores in found.items()}
    intervals = {}
    for name in [name for name in found if name != "refined"]:
        both = (ours["psnr"] - found[name]["psnr"]).dropna()  # tiles that either was asked for
        intervals[name] = paired_interval(both, ours.loc[both.index, "group"]) if len(both) else (np.nan, np.nan)
        more |= dict(zip((f"refined_less_{name}_low", f"refined_less_{name}_high"), intervals[name]))
    return {
        "value": float(ours["psnr"].mean()),
        "baseline": float(found["bicubic"]["psnr"].mean()),
        "difference_interval": intervals["bicubic"],
        "unit": "dB PSNR of the rows between known ones; baseline bicubic",
        "n": len(ours),
        "more": {"share_of_known_px_unchanged": float(kept)} | {name: float(value) for name, value in more.items()},
    }


def _scores(study: Study, rows: pd.DataFrame, made: np.ndarray) -> pd.DataFrame:
    """How near tiles come to their truth, by tile: psnr of the rows between known ones, dB; ssim and fsim; kept, the share of known pixels
    that are the truth's to the bit; group."""
    tiles = _tiles(study, rows)
    truth, between = _truth(study, tiles), study.real().read(tiles, "mask") > 0
    whole = fidelity(made, truth)
    scores = {"psnr": psnr_inside(made, truth, between), "ssim": whole.ssim, "fsim": whole.fsim}
    scores["kept"] = np.array([same[~there].mean() for same, there in zip((made == truth).all(-1), between)])
    return pd.DataFrame(scores | {"group": tiles["split_group"].to_numpy()}, index=tiles.index)


def _tiles(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """The real tiles that rows of the predicted store began from."""
    return study.real().rows().set_index("tile_id", drop=False).loc[rows["input_ref"]]


def _predicted(study: Study) -> dict[str, pd.DataFrame]:
    """The rows of each request, a row a tile, in one order of the tiles."""
    every = TileStore(study.predicted).rows().drop_duplicates(["request", "input_ref"]).sort_values("input_ref")
    return {str(name): own for name, own in every.groupby("request")}


def _truth(study: Study, tiles: pd.DataFrame) -> np.ndarray:
    """All rows of tiles, (n, h, w, 3) uint8."""
    places = tiles["tile_id"].str.rsplit("_", n=1).str[-1].astype(int).to_numpy()
    return np.repeat(np.load(study.root / _TRUTH)[places][..., None], 3, -1)


def _linear(tiles: np.ndarray) -> np.ndarray:
    """Linear interpolation between the known rows of tiles; those after the last known one stay as they are."""
    out = tiles.copy()
    for tile in out:
        found = along(np.ascontiguousarray(tile[::EVERY, :, 0]), "bilinear")
        tile[: len(found)] = found[..., None]
    return out


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out slices along the axis, and what each way fills between the known rows."""
    few = {name: spread(own, 10) for name, own in _predicted(study).items()}
    tiles, store = _tiles(study, few["refined"]), TileStore(study.predicted)
    titles = {
        "refined": "filled from the interpolation, each step three times: the mean of four",
        "one-sample": "one sample of it",
        "no-rounds": "each step once: the mean of four",
        "from-noise": "filled from noise: the mean of four",
    }
    return {
        "held out, all rows": _truth(study, tiles),
        "one row of four, and bicubic interpolation": study.real().read(tiles),
        **{title: store.read(few[name]) for name, title in titles.items() if name in few},
    }
