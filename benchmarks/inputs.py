"""The studies of benchmarks.conditions: on real data, or on slides that it draws."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed

from benchmarks.studies import Study
from histoloom.errors import HistoloomError

EOSIN_TIMES = 4.0
_TINY = {
    "train_autoencoder": {"channels": 16, "down_factor": 4, "steps": 10, "batch_size": 8},
    "train_denoiser": {"channels": [16, 32], "steps": 10, "batch_size": 8},
    "train_encoders": {
        "text": {"image_px": 32, "width": 32, "layers": 1, "steps": 4, "batch_size": 8},
        "rna": {"hidden": [16], "code": 4, "steps": 10},
    },
}


def real_data() -> Path:
    folder = Path(os.environ.get("HISTOLOOM_REAL_DATA", "/nowhere")).absolute()
    if not folder.is_dir():
        raise HistoloomError("HISTOLOOM_REAL_DATA names no folder: set it (docs/how-to/develop.md), or use --smoke.")
    return folder


def dealt(names: pd.Series, parts: int) -> pd.Series:
    """Each name's part, in seeded order."""
    order = np.random.default_rng(0).permutation(sorted(names.unique()))
    return pd.Series(np.arange(len(order)) % parts, index=order)


def _params(tile: dict, conditions: list[str], evaluation_tiles: int, **sections: dict) -> dict:
    base = {
        "seed": 0,
        "tile": {"tile_px": 64, "stain": "none"} | tile,
        "train_autoencoder": {
            "channels": 32, "down_factor": 4, "steps": 1200, "batch_size": 8, "learning_rate": 3e-3, "detail_weight": 1.0,
        },
        "encode": {"symmetries": "turns"},
        "train_denoiser": {
            "channels": [48, 96, 192], "steps": 2200, "learning_rate": 6e-4, "ema_decay": 0.998, "batch_size": 32,
        },
        "plan": {"target": "none", "evaluation_tiles": evaluation_tiles, "batch_size": 32},
        "sample": {"steps": 20},
    }  # fmt: skip
    base["train_denoiser"] |= {"conditions": conditions, "drop": dict.fromkeys(conditions, 0.2)}
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return base


def _monuseg_rows(table: pd.DataFrame) -> list[dict]:
    """Of the six patients of an organ two are held out, of two patients one."""
    held_out = {p for _, part in table.groupby("organ") for p in part["patient_id"].iloc[-max(1, len(part) // 3) :]}
    return [
        {
            "slide_id": Path(row.image).stem,
            "path": row.image,
            "patient_id": row.patient_id,
            "mpp": row.mpp,
            "label": row.organ,
            "instances": row.instances,
            "split": "test" if row.patient_id in held_out else "train",
        }
        for row in table.itertuples()
    ]


def nuclei(root: Path) -> Study:
    """Masks of nuclei and organs: monuseg at 0.5 µm/px, patients split."""
    data = real_data() / "monuseg"
    rows = _monuseg_rows(pd.read_csv(data / "images.csv"))
    tile = {
        "slides_root": str(data),
        "mpp": 0.5,
        "stride_px": 32,
        "tissue": {"mpp": 4.0, "min_fraction": 0.3},
        "labels": {"source": "slide", "classes": sorted({row["label"] for row in rows})},
        "masks": {"source": "raster", "classes": ["nucleus"]},
        "caption": "H&E of {label}",
    }
    params = _params(tile, ["mask", "label"], 320, encode={"symmetries": "turns", "edges": True})
    return Study(root / "nuclei", params, rows, {})


def her2st_rows() -> list[dict]:
    """Sections of one patient, C5 held out."""
    return [
        {"slide_id": s, "path": f"{s}.tif", "patient_id": "HER2ST-C", "split": "test" if s == "C5" else "train"}
        for s in ("C2", "C3", "C4", "C5")
    ]


def spots(root: Path) -> Study:
    """RNA and text of spots: her2st, section C5 held out."""
    data, rows = real_data() / "her2st", her2st_rows()
    tile = {
        "slides_root": str(data / "slides"),
        "mpp": 1.38,
        "stride_px": 32,
        "spots": "manifests/spots.csv",
        "tissue": {"mpp": 11.0, "min_fraction": 0.3},
        "labels": {"source": "spots", "classes": ["cancer", "immune", "other"], "spot_radius_um": 40},
        "caption": "H&E of breast, {annotation}",
        "split": {"group": "slide"},
    }
    encoders = {
        "text": {"steps": 300},
        "rna": {
            "table": "manifests/expression.parquet", "key": "spot_id", "hidden": [512, 256], "code": 32, "steps": 1500,
        },
    }  # fmt: skip
    params = _params(tile, ["rna", "text"], 320, train_encoders=encoders)
    files = {f"manifests/{name}": data / name for name in ("spots.csv", "expression.parquet")}
    return Study(root / "spots", params, rows, files)


def planted(root: Path) -> Study:
    """A genotype whose effect is known: patients stated as altered have their eosin made stronger."""
    data = real_data() / "monuseg"
    table = pd.read_csv(data / "images.csv")
    tile = {
        "mpp": 1.0,
        "stride_px": 32,
        "tissue": {"mpp": 4.0, "min_fraction": 0.3},
        "labels": {"source": "slide", "classes": sorted(set(table["organ"]))},
        "caption": "H&E",
    }
    pictures = {row.patient_id: np.asarray(Image.open(data / row.image).convert("RGB")) for row in table.itertuples()}
    rows = [{k: v for k, v in row.items() if k != "instances"} for row in _monuseg_rows(table)]
    tp53 = pd.read_csv(data / "genotype.csv", dtype=str).set_index("patient_id")["TP53"].to_dict()
    smaller = {
        "train_autoencoder": {"channels": 32, "steps": 800, "batch_size": 8, "learning_rate": 3e-3},
        "train_denoiser": {"channels": [32, 64, 128], "steps": 900, "learning_rate": 1e-3, "ema_decay": 0.998},
    }
    return _with_planted_genotype(root / "planted", tile, rows, pictures, tp53, 192, **smaller)


def _with_planted_genotype(
    folder: Path,
    tile: dict,
    rows: list[dict],
    pictures: dict[str, np.ndarray],
    tp53: dict[str, str],
    evaluation_tiles: int,
    workers: int | str = "auto",
    **sections: dict,
) -> Study:
    """Every other patient of a split is altered; of every sixth it is not known. `tp53` is what the real table says."""
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    states = []
    for number, row in enumerate(sorted(rows, key=lambda row: row["split"])):
        altered, known = number % 2 == 1, number % 6 != 5
        row["path"] = f"{row['slide_id']}.png"
        if not (folder / "data/slides" / row["path"]).exists():
            picture = pictures[row["patient_id"]]
            Image.fromarray(with_eosin(picture, EOSIN_TIMES) if altered else picture).save(
                folder / "data/slides" / row["path"]
            )
        value = ("MUT" if altered else "WT") if known else "NS"
        states.append({"patient_id": row["patient_id"], "PLANTED": value, "TP53": tp53[row["patient_id"]]})
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(states).to_csv(folder / "manifests/genotype.csv", index=False)
    encoders = {"genotype": {"table": "manifests/genotype.csv"}} | sections.pop("train_encoders", {})
    params = _params(tile, ["genotype"], evaluation_tiles, train_encoders=encoders, **sections)
    return Study(folder, params, rows, {}, workers)


def with_eosin(picture: np.ndarray, times: float) -> np.ndarray:
    """(h, w, 3) uint8 with the eosin of colour deconvolution (Ruifrok & Johnston 2001) `times` as strong."""
    stains = rgb2hed(picture)
    stains[..., 1] *= times
    return (hed2rgb(stains) * 255).round().astype(np.uint8)


def eosin(pictures: np.ndarray) -> np.ndarray:
    """(n,) mean eosin of tiles."""
    return rgb2hed(pictures)[..., 1].mean((1, 2))


def drawn_slides(root: Path) -> tuple[list[dict], dict]:
    """Six drawn slides: their rows of slides.csv, and the section `tile` of params that cuts them."""
    rows, folder = [], root.absolute() / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        picture, instances = _draw(number)
        Image.fromarray(picture).save(folder / f"s{number}.png")
        Image.fromarray(instances).save(folder / f"i{number}.png")
        row = {"slide_id": f"s{number}", "path": f"s{number}.png", "patient_id": f"p{number}", "mpp": 0.5}
        row |= {"label": ("large", "small")[number % 2], "instances": f"i{number}.png"}
        rows.append(row | {"split": "test" if number > 3 else "train"})
    tile = {
        "slides_root": str(folder),
        "mpp": 0.5,
        "tile_px": 32,
        "stride_px": 32,
        "tissue": {"mpp": 4.0, "min_fraction": 0.1},
        "labels": {"source": "slide", "classes": ["large", "small"]},
        "caption": "H&E of {label} nuclei",
    }
    return rows, tile


def drawn(root: Path, name: str) -> Study:
    """A tiny study of each kind, its slides drawn here."""
    rows, tile = drawn_slides(root)
    pictures = {row["patient_id"]: np.asarray(Image.open(root / "drawn" / row["path"])) for row in rows}
    if name == "planted":
        rows = [{k: v for k, v in row.items() if k != "instances"} for row in rows]
        tile = {k: v for k, v in tile.items() if k != "slides_root"}
        return _with_planted_genotype(
            root / name,
            tile,
            rows,
            pictures,
            dict.fromkeys(pictures, "WT") | {"p1": "MUT", "p5": "MUT"},
            16,
            0,
            **_TINY,
        )
    if name == "nuclei":
        tile |= {"masks": {"source": "raster", "classes": ["nucleus"]}}
        return Study(
            root / name, _params(tile, ["mask", "label"], 16, **_TINY | {"encode": {"edges": True}}), rows, {}, 0
        )
    rna = {"table": "manifests/expression.parquet", "key": "patient_id"} | _TINY["train_encoders"]["rna"]
    (root / name / "manifests").mkdir(parents=True, exist_ok=True)
    counts = np.random.default_rng(0).poisson(5, (6, 12)) * np.where(np.arange(6) % 2, 1, 3)[:, None]
    table = pd.DataFrame(counts, columns=[f"G{g}" for g in range(12)]).assign(patient_id=list(pictures))
    table.to_parquet(root / name / "manifests/expression.parquet")
    encoders = {"train_encoders": {"text": _TINY["train_encoders"]["text"], "rna": rna}}
    return Study(root / name, _params(tile, ["rna", "text"], 16, **_TINY | encoders), rows, {}, 0)


def _draw(number: int, side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A picture of round nuclei on pink ground, large or small, and their instances."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side]
    instances = np.zeros((side, side), np.uint16)
    for nucleus in range(1, 60):
        cy, cx = rng.integers(0, side, 2)
        here = np.hypot(y - cy, x - cx) < (7, 4)[number % 2]
        instances[here & (instances == 0)] = nucleus
    ground = np.array([225, 160, 190]) + 12 * gaussian_filter(rng.standard_normal((side, side)), 2)[..., None]
    blue = gaussian_filter((instances > 0).astype(float), 0.7)[..., None]
    return np.clip(ground * (1 - blue) + np.array([90, 60, 130]) * blue, 0, 255).astype(np.uint8), instances
