"""Studies that take a packaged model as it is: of the section that it never saw, or of drawn slides."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.inputs import drawn_slides, her2st_rows, real_data
from benchmarks.studies import Study
from histoloom.cli.recipe import merge
from histoloom.config.denoiser_record import CONDITIONS_FILE, read_denoiser_record
from histoloom.config.package import packaged
from histoloom.data.commit import write_json
from histoloom.data.study_folder import Study as StudyFolder
from histoloom.emit.model import Words, package_models

MODEL = "histoloom-small"
_ENCODERS = {"text": "source", "rna": "init", "image": "source"}
FORMER = {
    "train_autoencoder": {
        "down_factor": 4, "latent_channels": 4, "channels": 32, "steps": 900, "batch_size": 8, "learning_rate": 3e-3, "detail_weight": 1.0,
        "perceptual_weight": 0.0, "blocks": 1, "crop_px": None, "mixed_precision": "no", "decoder_steps": 0,
    },
    "train_denoiser": {
        "channels": [32, 64, 128], "steps": 850, "batch_size": 32, "learning_rate": 1e-3, "ema_decay": 0.998,
        "mixed_precision": "no", "attention_head_dim": 8,
    },
    "encode": {"symmetries": "none", "mask_detail": 1, "precision": "fp32"},
    "train_encoders": {"text": {"steps": 150}},
}  # fmt: skip
"""What the demo trained from scratch before there was a packaged model."""


def recipe() -> dict:
    root = Path(__file__).parents[1]
    params = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    for name in ("study", MODEL):
        merge(params, YAML(typ="safe").load((root / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")))
    return params


def as_packaged(params: dict, model: str) -> dict:
    """Params of a study that takes the packaged model as it is."""
    params, told = copy.deepcopy(params), params["train_denoiser"]["conditions"]
    merge(
        params,
        {
            "train_encoders": {name: {key: model} for name, key in _ENCODERS.items() if name in told},
            "train_autoencoder": {"init": model, "steps": 0, "decoder_steps": 0, "scale": "kept"},
            "train_denoiser": {"init": model, "steps": 0},
            "encode": {"symmetries": "none"},
        },
    )
    return params


class Packaged(Study):
    """A study of a packaged model as it is: nothing is trained, so no tile need be encoded."""

    def train(self) -> None:
        cut = () if (self.folder / "data/tiles").exists() else ("tile",)  # a copied study has its tiles
        self.run(*cut, "train_encoders", "train_autoencoder")
        denoiser = self.folder / "models/denoiser"
        shutil.rmtree(denoiser, ignore_errors=True)
        shutil.copytree(packaged(self.params["train_denoiser"]["init"], "denoiser"), denoiser)
        record, sizes = read_denoiser_record(denoiser), StudyFolder(self.folder).params
        assert record is not None, "a package has one"
        px = sizes.tile.tile_px // sizes.factor  # it may have seen larger tiles than these
        training = replace(record.training, shape=(record.training.shape[0], px, px))
        write_json(denoiser / CONDITIONS_FILE, replace(record, training=training).json)
        self.run("plan")


def real(root: Path, model: str, tiles: int) -> tuple[Packaged, Study]:
    data, params = real_data() / "her2st", recipe()
    params["tile"]["slides_root"] = str(data / "slides")
    params["plan"]["evaluation_tiles"] = tiles
    rows = [row | {"split": "val" if row["split"] == "test" else "train"} for row in her2st_rows()]
    files = {f"manifests/{name}": data / name for name in ("spots.csv", "expression.parquet")}
    scratch = copy.deepcopy(params)
    merge(scratch, FORMER)
    return (
        Packaged(root / "packaged", as_packaged(params, model), rows, files),
        Study(root / "scratch", scratch, rows, files),
    )


def smoke(root: Path) -> tuple[Packaged, Study]:
    """Drawn slides, and a model of a few steps in the packaged one's place."""
    rows, tile = drawn_slides(root)
    rows = [{k: v for k, v in r.items() if k != "instances"} for r in rows]
    rows = [r | {"split": "val" if r["split"] == "test" else "train"} for r in rows]
    tile |= {"masks": {"source": "stain", "classes": ["nucleus", "clear"]}, "caption": "{measured}"}
    params = {
        "tile": tile,
        "train_encoders": {"text": {"image_px": 32, "width": 32, "layers": 1, "steps": 4, "batch_size": 8}},
        "train_autoencoder": {"channels": 16, "steps": 10, "batch_size": 8},
        "train_denoiser": {"conditions": ["label", "text", "mask"], "channels": [16, 32], "steps": 10, "batch_size": 8},
        "plan": {"target": "none", "evaluation_tiles": 24, "batch_size": 8},
        "sample": {"steps": 4},
    }
    first = Study(root / "first", params, rows, {}, 0)
    first.train()
    if not (root / "model").exists():
        package_models(StudyFolder(first.folder), root / "model", Words("Drawn slides."))
    return Packaged(root / "packaged", as_packaged(params, str(root / "model")), rows, {}, 0), first
