"""Su et al. 2023, DDIB, as virtual staining has used it: tiles of one site as the other would show them, beside Reinhard and Macenko."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.color import lab2rgb, rgb2hed, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.registration import phase_cross_correlation

from histoloom.conditions.encode import batch, null
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config.program import Program, Start
from histoloom.data.drawn import write_drawn
from histoloom.data.slide_fields import written
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.kid import kid
from histoloom.sampling.diffusion_model import load_diffusion_model, no_tiles
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.slides.stain import macenko_stains, optical_density
from histoloom.slides.stain_mask import fit_stain_mask
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
FOLDS = {"drawn": 1, "real": 4}


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Each drawn patient as both sites stain it; or scanner_pairs, of whose four slides the fold's is held out."""
    if data is None:
        write_drawn(folder)
    else:
        write_scanner_pairs(folder, data, fold)


def write_scanner_pairs(folder: Path, data: Path, fold: int) -> None:
    """Each picture of MITOS-ATYPIA as a slide of its scanner, and the scanners as sites."""
    names = sorted(path.stem for path in (data / "aperio").glob("*.jpg"))
    slides = sorted({name[:2] for name in names})
    rows = []
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    for scanner, site in (("aperio", "north"), ("hamamatsu", "south")):
        for name in names:
            place = slides.index(name[:2])
            split = "test" if place == fold else "train"
            shutil.copy(data / scanner / f"{name}.jpg", folder / f"data/slides/{name}_{site}.jpg")
            rows.append(
                {"slide_id": f"{name}_{site}", "path": f"{name}_{site}.jpg", "patient_id": name[:2], "mpp": 0.5, "site": site,
                 "split": split, "label": "dense"}
            )  # fmt: skip
    with (folder / "manifests/slides.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def measure(studies: list[Study]) -> Measured:
    """PSNR of what was made of north's held-out tiles against what south shows of the same place, moved to fit; beside the better of Reinhard and
    Macenko, fitted to south's train tiles."""
    found = [_of(study) for study in studies]
    (ours, reinhard, macenko), groups = (
        np.stack([each.of for each in found], 1).reshape(3, -1),
        _joined(found, "groups"),
    )
    best = "reinhard" if reinhard.mean() >= macenko.mean() else "macenko"
    theirs = {"reinhard": reinhard, "macenko": macenko}[best]
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, groups),
        "unit": f"dB PSNR against the other site; baseline {best}",
        "n": len(ours),
        "more": {
            "reinhard": float(reinhard.mean()),
            "macenko": float(macenko.mean()),
            "ssim_of_haematoxylin_with_the_source": float(_joined(found, "ssim").mean()),
            "dice_of_nuclei_with_the_source": float(_joined(found, "dice").mean()),
            "psnr_of_what_comes_back_unchanged": float(_joined(found, "unchanged").mean()),
            "psnr_of_what_comes_back_from_the_other_site": float(_joined(found, "cycle").mean()),
            "kid_to_the_other_site": float(np.mean([each.kid for each in found])),
            "kid_of_the_source_to_the_other_site": float(np.mean([each.kid_of_source for each in found])),
        },
    }


@dataclass(frozen=True)
class _Found:
    """Of the tiles of a study: PSNR of ours, Reinhard and Macenko, (3, n), their patients, and what was kept; of held-out tiles KIDs."""

    of: np.ndarray
    groups: np.ndarray
    ssim: np.ndarray
    dice: np.ndarray
    unchanged: np.ndarray
    cycle: np.ndarray
    kid: float
    kid_of_source: float


def _joined(found: Sequence[_Found], name: str) -> np.ndarray:
    return np.concatenate([getattr(each, name) for each in found])


def _of(study: Study) -> _Found:
    real, store = study.real(), TileStore(study.synthetic)
    every = real.rows()
    tiles = every.set_index("tile_id", drop=False)
    made = store.rows()
    own, back = made[made["request"] == "translated"], made[made["request"] == "unchanged"]
    own, names = with_partners(own, tiles.index)
    source = real.read(tiles.loc[own["input_ref"]])
    partners = real.read(tiles.loc[names])
    train = every[every["split"] == "train"]
    looks = [
        real.read(of.iloc[:: max(1, len(of) // 64)]).reshape(-1, 3)
        for of in (train[train["slide_id"].str.endswith(f"_{site}")] for site in ("north", "south"))
    ]
    translated = store.read(own)
    of_baselines = [reinhard(source, *looks), macenko(source, *looks)]
    scores = [np.array([_psnr(a, b) for a, b in zip(made_, partners)]) for made_ in (translated, *of_baselines)]
    kept = np.array(
        [
            structural_similarity(a, b, data_range=np.ptp(a))
            for a, b in zip(_haematoxylin(source), _haematoxylin(translated))
        ]
    )
    originals = real.read(tiles.loc[back["input_ref"]])
    unchanged = np.array([peak_signal_noise_ratio(a, b) for a, b in zip(originals, store.read(back))])
    cycle = np.array([peak_signal_noise_ratio(a, b) for a, b in zip(source, _returned(study, translated, own["seed"]))])
    tower, other = load_extractor("efficientnet-lite0", "cpu"), every[every["split"] == "test"]
    other = tower.features(real.read(other[other["slide_id"].str.endswith("_south")]))
    kids = [kid(tower.features(tiles_), other, 50, 0)["mean"] for tiles_ in (translated, source)]
    dice = _nuclei_kept(source, translated, study.params.tile.mpp)
    return _Found(np.stack(scores), own["split_group"].to_numpy(), kept, dice, unchanged, cycle, *kids)


def _returned(study: Study, translated: np.ndarray, seeds: pd.Series) -> np.ndarray:
    """Translated tiles, inverted under south and run under north."""
    params = study.params
    model = load_diffusion_model(study.models, "to be returned", "auto", "cpu")
    rows = {site: pd.DataFrame({"cohort": [written({"site": site})] * len(seeds)}) for site in ("north", "south")}
    given = {site: model.conditions.arrays(of, no_tiles) for site, of in rows.items()}
    program, nulls, out = Program(start=Start(inverted=True)), null(given["north"], model.specs), []
    for start in range(0, len(seeds), params.plan.batch_size):
        index = np.arange(start, min(start + params.plan.batch_size, len(seeds)))
        north, south = (batch(given[site], model.specs, index) for site in ("north", "south"))
        own = Rows(seeds.to_numpy()[index], north, nulls, {"image": translated[index]}, south)
        out.append(Drawn(model, params.sample, own, program).samples[0]["image"])
    return np.concatenate(out)


def _nuclei_kept(source: np.ndarray, translated: np.ndarray, mpp: float) -> np.ndarray:
    """Dice of nuclei as the stain tells them in a tile and in its translation, each fitted to its own tiles; where either has some."""
    masks = []
    for tiles in (source, translated):
        told = fit_stain_mask(("nucleus",), tiles, mpp)
        masks.append(np.stack([told.segment(tile, mpp).mask > 0 for tile in tiles]))
    both, all_ = ((masks[0] & masks[1]).sum((1, 2)), sum(mask.sum((1, 2)) for mask in masks))
    return 2 * both[all_ > 0] / all_[all_ > 0]


def shown(study: Study) -> dict[str, np.ndarray]:
    """Tiles of one site, what was made of them, and what the other site shows of the same place."""
    real, store = study.real(), TileStore(study.synthetic)
    tiles, made = real.rows().set_index("tile_id", drop=False), store.rows()
    own, names = with_partners(made[made["request"] == "translated"], tiles.index)
    few = own.iloc[:: max(1, len(own) // 10)]
    translated = store.read(few)
    return {
        "north": real.read(tiles.loc[few["input_ref"]]),
        "translated to south": translated,
        "what south shows there": real.read(tiles.loc[names[few.index]]),
        "translated back to north": _returned(study, translated, few["seed"]),
    }


def with_partners(made: pd.DataFrame, known: pd.Index) -> tuple[pd.DataFrame, pd.Series]:
    """The rows whose place has a tile of the other site, and these tiles' ids: where that site shows glass, it has none.

    known : ids of all real tiles.
    """
    names = made["input_ref"].str.replace("_north_", "_south_")
    there = names.isin(known)
    return made[there], names[there]


def reinhard(tiles: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Tiles (n, h, w, 3) whose colours take the mean and deviation of `after` in place of those of `before`, pixels (m, 3), in Lab."""
    (mean, std), (new_mean, new_std) = (
        (lab.mean(0), lab.std(0)) for lab in (rgb2lab(look) for look in (before, after))
    )
    return (lab2rgb((rgb2lab(tiles) - mean) / std * new_std + new_mean).clip(0, 1) * 255).round().astype(np.uint8)


def macenko(tiles: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Tiles whose stains and their strengths are those of `after` in place of those of `before` (Macenko et al. 2009)."""
    old, new = (
        macenko_stains(d[(d > 0.15).all(-1)].astype(float)) for d in (optical_density(look) for look in (before, after))
    )
    if old is None or new is None:
        return tiles
    (stains, strongest), (new_stains, new_strongest) = old, new
    density = optical_density(tiles) @ np.linalg.pinv(stains) * (new_strongest / strongest) @ new_stains
    return np.clip(240 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def _haematoxylin(tiles: np.ndarray) -> np.ndarray:
    return rgb2hed(tiles)[..., 0]


def _psnr(made: np.ndarray, partner: np.ndarray) -> float:
    """Where the two overlap once they are moved to fit, a few px at most."""
    moved, _, _ = phase_cross_correlation(partner.mean(-1), made.mean(-1))
    dy, dx = (int(v) if abs(v) <= 8 else 0 for v in moved)
    h, w = made.shape[:2]
    there = partner[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)]
    here = made[max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)]
    return min(peak_signal_noise_ratio(there, here), 60.0)
