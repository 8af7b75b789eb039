"""Studies that take a packaged model as it is: of the section that it never saw, or of drawn slides; and a model that was packaged once."""

from __future__ import annotations

import copy
import io
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.inputs import drawn_slides, her2st_rows, real_data
from benchmarks.studies import Study
from histoloom.cli.recipe import merge
from histoloom.conditions.encode import FACTS
from histoloom.config.denoiser_record import CONDITIONS_FILE, ConditionSpec, DenoiserRecord, read_denoiser_record
from histoloom.config.package import packaged, read_json
from histoloom.data.commit import write_json
from histoloom.data.lineage import read_lineage
from histoloom.data.study_folder import Study as StudyFolder
from histoloom.emit.model import Words, package_models
from histoloom.errors import HistoloomError

MODEL = "histoloom-base"
DATASET = "her2st"
ADAPTED: dict[str, Any] = {
    "train_encoders": {"text": {"source": MODEL}},
    "train_autoencoder": {
        "init": MODEL, "down_factor": 4, "crop_px": 64, "detail_weight": 0.25, "perceptual_weight": 0.1, "steps": 200, "batch_size": 4,
        "learning_rate": 5e-4, "mixed_precision": "bf16",
    },
    "encode": {"batch_size": 16, "symmetries": "flips", "precision": "bf16", "mask_detail": 2},
    "train_denoiser": {"init": MODEL, "steps": 400, "batch_size": 16, "learning_rate": 5e-4, "ema_decay": 0.99, "mixed_precision": "bf16"},
    "sample": {"steps": 20, "guidance": 1.5, "precision": "bf16"},
    "filter": {"use": ["quality", "distance", "realism", "near_copy"], "min_yield": 0.02},
    "emit": {"allow_unknown_ancestors": True},
}  # fmt: skip
"""Sections of a study that adapts the packaged model to tiles of 64 px."""
_ENCODERS = {"text": "source", "rna": "init", "image": "source"}
_OF_THE_STUDY = {"rna": ("table", "key", "min_matched"), "cohort": ("columns",)}
"""Params of encoders that say what a study has, and not how an encoder is trained."""
_ROOT = Path(__file__).parents[1]


def demo_params() -> dict:
    """The demo's params as they are stated, without what its package fills in."""
    return YAML(typ="safe").load((_ROOT / "params.yaml").read_text(encoding="utf-8"))


def recipe() -> dict:
    params = demo_params()
    for name in ("study", MODEL):
        merge(params, YAML(typ="safe").load((_ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")))
    return params


def specs_of(model: str) -> tuple[ConditionSpec, ...]:
    """The conditions of a packaged model."""
    record = read_denoiser_record(packaged(model, "denoiser"))
    assert record is not None, "a package has one"
    return record.conditions


def seen_by(model: str, dataset: str) -> set[str]:
    """The patients of a data set that a packaged model was trained on, as they are named there."""
    groups = read_lineage(packaged(model, "denoiser")).groups
    return {name for of, name in (group.split(":", 1) for group in groups if ":" in group) if of == dataset}


def as_packaged(params: dict, model: str) -> dict:
    """Params of a study that takes the packaged model as it is: its conditions and sizes, and the study's tiles and tables."""
    params, told = copy.deepcopy(params), [spec.name for spec in specs_of(model)]
    own = params.get("train_encoders", {})
    encoders = {
        name: {key: own[name][key] for key in keys if key in own[name]}
        for name, keys in _OF_THE_STUDY.items()
        if name in own
    }
    merge(encoders, {name: {key: model} for name, key in _ENCODERS.items() if name in told})
    return params | {
        "train_encoders": encoders,
        "train_autoencoder": {"init": model, "steps": 0, "decoder_steps": 0, "scale": "kept"},
        "encode": {},
        "train_denoiser": {"init": model, "steps": 0, "conditions": told},
    }


def from_history(name: str, work: Path, checkout: Path = _ROOT) -> Path:
    """The folder of a model that was packaged once, unpacked under `work` from the last commit that held it.

    Raises
    ------
    HistoloomError
        when `checkout` is no git checkout, or its history doesn't reach back so far.
    """
    place = f"pretrained/{name}"
    removed = _git(checkout, "log", "--diff-filter=D", "--format=%H", "-1", "--", place).decode().strip()
    held = _git(checkout, "archive", "--format=tar", f"{removed}~1", place) if removed else b""
    if not held:
        raise HistoloomError(
            f"No commit of the git checkout {checkout} holds {place}. Run this in a checkout with the whole history (git fetch --unshallow), "
            "or name a folder that holds the model."
        )
    with tarfile.open(fileobj=io.BytesIO(held)) as archive:
        archive.extractall(work, filter="data")
    return work / place


def _git(checkout: Path, *arguments: str) -> bytes:
    """What git prints; nothing where it fails."""
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False)
    return b"" if done.returncode else done.stdout


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
        self._take_cohorts(record)
        self.run("plan")

    def _take_cohorts(self, record: DenoiserRecord) -> None:
        """Let cohorts stand where the denoiser has them: the encoders were fitted to this study, which has fewer."""
        path = self.folder / "models/encoders" / FACTS
        facts = read_json(path)
        for spec in (spec for spec in record.conditions if spec.name == "cohort"):
            facts["cohort"] = {"channels": list(spec.channels)}
        write_json(path, facts)


def real(root: Path, model: str, tiles: int) -> Packaged:
    """Sections of her2st at the model's scale, C5 held out."""
    data, params = real_data() / DATASET, recipe()
    merge(
        params,
        {
            "tile": {
                "slides_root": str(data / "slides"), "sets": [], "more_mpp": [], "stride_px": params["tile"]["tile_px"] // 2,
                "tissue": {"out_of_focus": "keep"}, "split": {"group": "slide"},
            },
            "plan": {"evaluation_tiles": tiles},
        },
    )  # fmt: skip
    rows = [
        row | {"split": "val" if row["split"] == "test" else "train", "dataset": DATASET, "organ": "breast"}
        for row in her2st_rows()
    ]
    files = {f"manifests/{name}": data / name for name in ("spots.csv", "expression.parquet")}
    return Packaged(root / "packaged", as_packaged(params, model), rows, files)


def smoke(root: Path) -> Packaged:
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
    return Packaged(root / "packaged", as_packaged(params, str(root / "model")), rows, {}, 0)
