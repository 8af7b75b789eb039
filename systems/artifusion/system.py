"""He et al. 2023, ArtiFusion: ink, folds and bubbles painted over by a denoiser of undamaged tiles, beside inpainting and a regression U-Net."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage.restoration import inpaint_biharmonic

from histoloom.cluster import one_thread
from histoloom.data.damage import REGIONS, damage
from histoloom.data.drawn import MPP, write_drawn
from histoloom.data.nuclei_sets import write_slides
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.regression import fit_regression
from histoloom.quality.fidelity import fidelity, psnr_inside
from histoloom.report.pictures import mask_picture
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
STEPS, BATCH, SIDE = 400, 8, 32
"""Of the regression U-Nets; px of a tile."""
REQUESTS = ("repaired", "one-sample", "by-unet")
_SLIDES, _TRUTH = "data/slides", "data/truth"
_TABLE = "data/truth/damaged.csv"
_EVERY_DRAWN, _EVERY_REAL = 4, 16
"""Of how many tiles of a test slide one is damaged."""
_PICTURES_A_SLIDE, _MOST_BACKGROUND, _LEAST_SHARP = 6, 0.3, 5.7


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, or lymph nodes of camelyon16. Tiles of test slides are damaged; the slides as they were lie in data/truth."""
    if data is None:
        write_drawn(folder)
    else:
        write_slides(folder, _lymph_nodes(folder, data))
    slides = pd.read_csv(folder / "manifests/slides.csv", dtype={"slide_id": str})
    slides = slides.drop(columns=["instances", "label"], errors="ignore")
    slides["mask"] = [Path(path).stem + "_artefact.png" for path in slides["path"]]
    (folder / _TRUTH).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, slide in enumerate(slides.itertuples()):
        picture = folder / _SLIDES / slide.path
        before = _picture(picture)
        where = np.zeros(before.shape[:2], bool)
        if slide.split == "test":
            after, where, planted = _damaged(before, _EVERY_DRAWN if data is None else _EVERY_REAL, number)
            rows += [{"slide_id": slide.slide_id, "path": slide.path, **one} for one in planted]
            picture.rename(folder / _TRUTH / slide.path)
            Image.fromarray(after).save(picture)
        Image.fromarray(where.astype(np.uint8)).save(folder / _SLIDES / slide.mask)
    pd.DataFrame(rows).to_csv(folder / _TABLE, index=False)
    write_slides(folder, slides)


def _damaged(slide: np.ndarray, every: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[dict[str, object]]]:
    """A slide of which some tiles are damaged, each in the next way; where; and the tiles, by corner and kind."""
    down, along = (side // SIDE for side in slide.shape[:2])
    places = np.random.default_rng(seed).permutation(down * along)[: down * along // every]
    corners = [(SIDE * int(place // along), SIDE * int(place % along)) for place in places]
    kinds = [[*REGIONS][(seed + number) % len(REGIONS)] for number in range(len(corners))]
    found = damage(np.stack([slide[y : y + SIDE, x : x + SIDE] for y, x in corners]), kinds, seed)
    out, where = slide.copy(), np.zeros(slide.shape[:2], bool)
    for (y, x), tile, region in zip(corners, found.images, found.where):
        out[y : y + SIDE, x : x + SIDE], where[y : y + SIDE, x : x + SIDE] = tile, region
    return out, where, [{"x": x, "y": y, "kind": kind} for (y, x), kind in zip(corners, kinds)]


def _lymph_nodes(folder: Path, data: Path) -> pd.DataFrame:
    """Sharp pictures of each slide with little background, at half their scale; every third slide is tested on."""
    table = pd.read_csv(data / "tiles.csv")
    table = table[(table["background_fraction"] < _MOST_BACKGROUND) & (table["laplacian_sd"] > _LEAST_SHARP)]
    table = pd.concat([spread(own, _PICTURES_A_SLIDE) for _, own in table.groupby("slide_id")])
    names = [f"{number:04d}.png" for number in range(len(table))]
    (folder / _SLIDES).mkdir(parents=True, exist_ok=True)
    for name, path in zip(names, table["path"]):
        with Image.open(data / path) as picture:
            picture.convert("RGB").reduce(2).save(folder / _SLIDES / name)
    place = {slide: number for number, slide in enumerate(sorted(table["slide_id"].unique()))}
    splits = [("train", "val", "test")[2 if place[s] % 3 == 2 else int(place[s] % 6 == 0)] for s in table["slide_id"]]
    ids = [name[:4] for name in names]
    return pd.DataFrame(
        {"slide_id": ids, "path": names, "patient_id": table["slide_id"].to_numpy(), "mpp": MPP, "split": splits}
    )


@dataclass(frozen=True)
class _Asked:
    """Held-out tiles that were damaged. rows : of the real tiles. where : (n, h, w) bool. kinds : (n,) of the damage."""

    rows: pd.DataFrame
    damaged: np.ndarray
    truth: np.ndarray
    where: np.ndarray
    kinds: np.ndarray


def _asked(study: Study, rows: pd.DataFrame) -> _Asked:
    """The real tiles that rows of the predicted store began from."""
    real = study.real()
    tiles = real.rows().set_index("tile_id", drop=False).loc[rows["input_ref"]]
    table = pd.read_csv(study.root / _TABLE, dtype={"slide_id": str}).set_index(["slide_id", "x", "y"])
    planted = table.loc[[*tiles[["slide_id", "x_level0_px", "y_level0_px"]].itertuples(index=False, name=None)]]
    truth = [
        _picture(study.root / _TRUTH / path)[y : y + SIDE, x : x + SIDE]
        for path, (_, x, y) in zip(planted["path"], planted.index)
    ]
    kinds = planted["kind"].to_numpy()
    return _Asked(tiles, real.read(tiles), np.stack(truth), real.read(tiles, "mask") > 0, kinds)


def measure(studies: list[Study]) -> Measured:
    """PSNR inside the artefacts of held-out tiles: of the mean of four samples, beside the best of two ways to fill and a regression U-Net."""
    (study,) = studies
    rows = _predicted(study)
    asked = _asked(study, rows["repaired"])
    ours = {name: TileStore(study.predicted).read(own) for name, own in rows.items()}
    kept = np.mean([(made == asked.damaged).all(-1)[~asked.where].mean() for made in ours.values()])
    assert kept == 1, "what lies outside the artefact changed"
    baselines = _filled(asked) | {"regression": _regressed(study, asked, [*REGIONS])}
    unseen = _unseen(study, asked)
    every = ours | baselines | {"damaged": asked.damaged, "regression_of_other_kinds": unseen}
    psnr = {name: psnr_inside(made, asked.truth, asked.where) for name, made in every.items()}
    of_tiles = {name: fidelity(made, asked.truth) for name, made in every.items()}
    best = max(baselines, key=lambda name: psnr[name].mean())
    difference = psnr["repaired"] - psnr[best]
    more = {f"psnr_{name}": values.mean() for name, values in psnr.items()}
    more |= {f"ssim_{name}": found.ssim.mean() for name, found in of_tiles.items()}
    more |= {f"fsim_{name}": found.fsim.mean() for name, found in of_tiles.items()}
    for name in ("repaired", "regression", "regression_of_other_kinds", "biharmonic", "median"):
        more |= {f"psnr_{name}_of_{kind}": psnr[name][asked.kinds == kind].mean() for kind in {*asked.kinds}}
    for name, other in (("repaired", "by-unet"), ("repaired", "regression_of_other_kinds")):
        low, high = paired_interval(psnr[name] - psnr[other], asked.rows["split_group"])
        more |= {f"{name}_less_{other}_low": low, f"{name}_less_{other}_high": high}
    return {
        "value": float(psnr["repaired"].mean()),
        "baseline": float(psnr[best].mean()),
        "difference_interval": paired_interval(difference, asked.rows["split_group"]),
        "unit": f"dB PSNR inside artefacts; baseline {best}",
        "n": len(difference),
        "more": {"share_of_px_outside_unchanged": float(kept)} | {name: float(value) for name, value in more.items()},
    }


def _predicted(study: Study) -> dict[str, pd.DataFrame]:
    """The rows of each request, a row a tile, in one order of the tiles."""
    every = TileStore(study.predicted).rows().drop_duplicates(["request", "input_ref"]).sort_values("input_ref")
    return {name: every[every["request"] == name] for name in REQUESTS}


def _filled(asked: _Asked) -> dict[str, np.ndarray]:
    """Regions filled from what is beside them: by the biharmonic equation, and by the median of the tile's other pixels."""
    smooth, flat = asked.damaged.copy(), asked.damaged.copy()
    for place, (tile, where) in enumerate(zip(asked.damaged, asked.where)):
        smooth[place] = np.rint(inpaint_biharmonic(tile, where, channel_axis=-1).clip(0, 1) * 255)
        flat[place][where] = np.median(tile[~where], 0)
    return {"biharmonic": np.where(asked.where[..., None], smooth, asked.damaged), "median": flat}


def _regressed(study: Study, asked: _Asked, kinds: list[str]) -> np.ndarray:
    """What a regression U-Net makes of the regions, taught on train tiles that were damaged in these ways."""
    store = study.real()
    train = store.read(store.rows(split="train"))
    with tempfile.TemporaryDirectory() as work, one_thread():
        run = TrainingRun("regression", STEPS, 2e-3, 0, Path(work), STEPS, warmup_steps=STEPS // 10)
        restored = fit_regression(damage(train, kinds, 1).images, train, run, BATCH)(asked.damaged)
    return np.where(asked.where[..., None], restored, asked.damaged)


def _unseen(study: Study, asked: _Asked) -> np.ndarray:
    """The same, each kind of damage restored by a network that was taught the other two."""
    out = asked.damaged.copy()
    for kind in {*asked.kinds}:
        own = asked.kinds == kind
        out[own] = _regressed(study, asked, [other for other in REGIONS if other != kind])[own]
    return out


def shown(study: Study) -> dict[str, np.ndarray]:
    """Damaged tiles, their truth, and what each way makes of them."""
    few = {name: spread(own, 10) for name, own in _predicted(study).items()}
    asked, store = _asked(study, few["repaired"]), TileStore(study.predicted)
    return {
        "held out, as they were": asked.truth,
        "damaged": asked.damaged,
        "where": mask_picture(asked.where.astype(np.uint8)),
        "repaired by swin: one sample": store.read(few["one-sample"]),
        "the mean of four": store.read(few["repaired"]),
        "by unet: the mean of four": store.read(few["by-unet"]),
        "filled by the biharmonic equation": _filled(asked)["biharmonic"],
        "by a regression U-Net that was taught these kinds": _regressed(study, asked, [*REGIONS]),
        "by one that was taught the other two kinds": _unseen(study, asked),
    }


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
