"""What the models that params begin from saw, held against the manifest before anything is trained on them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from histoloom.config import Params
from histoloom.config.extractors import OF_NO_PATIENT
from histoloom.config.package import packaged
from histoloom.data.ancestry import Recognised, answer, grid_of, recognise
from histoloom.data.codes import known_salt
from histoloom.data.groups import split_groups
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.manifest import Manifest
from histoloom.errors import Fault

_BEGUN_ANEW = ("scratch", "train")


def check_begun_from(params: Params, manifest: Manifest, splits: dict[str, str], salt: Path) -> list[Fault]:
    """What the leak gate of `emit`, `evaluate` and `uplift` will refuse of the models that params name."""
    rows = _rows(params, manifest, splits)
    faults: list[Fault] = []
    for key, lineage in _ancestors(params).items():
        found = recognise(lineage.record, rows, known_salt(salt), grid_of(params.tile.split))
        faults += _faults(key, found, manifest, params)
    return faults


def _ancestors(params: Params) -> dict[str, Lineage]:
    """Key of params to what the model that it names saw; each record once."""
    encoders, names = params.train_encoders, params.train_denoiser.conditions
    stated = {
        "train_denoiser.init": (params.train_denoiser.init, "denoiser", ""),
        "train_autoencoder.init": (params.train_autoencoder.init, "autoencoder", ""),
        "train_encoders.text.source": (encoders.text.source if "text" in names else "train", "encoders/text", ".."),
        "train_encoders.rna.init": (encoders.rna.init if "rna" in names else "train", "encoders/rna", ".."),
    }
    out: dict[str, Lineage] = {}
    for key, (source, part, record) in stated.items():
        if source in _BEGUN_ANEW:
            continue
        place = packaged(source, part)
        lineage = read_lineage(Path(place) / record if Path(place).is_dir() else place)
        if lineage not in out.values():
            out[key] = lineage
    if "image" in names:
        tower = encoders.image.source
        out["train_encoders.image.source"] = Lineage(unknown=() if tower in OF_NO_PATIENT else (tower,))
    return out


def _rows(params: Params, manifest: Manifest, splits: dict[str, str]) -> pd.DataFrame:
    """A row for each slide and group, as `tile` will write them."""
    columns = ["slide_id", "patient_id", "split_group", "split", "dataset"]
    rows = [
        (entry.slide_id, entry.patient_id, group, splits[group], entry.extra.get("dataset"))
        for entry in manifest.slides
        for group in split_groups(entry, params.tile)
    ]
    return pd.DataFrame(rows, columns=columns)


def _faults(key: str, found: Recognised, manifest: Manifest, params: Params) -> list[Fault]:
    where, lines = params.tile.manifest, {entry.slide_id: entry.row for entry in manifest.slides}
    faults = [
        Fault(where, f"'{name}' is held out, and the model of {key} saw it.",
              "state split: train for it, or begin from another model.", lines.get(name), "split")
        for name in found.held_out
    ]  # fmt: skip
    faults += [
        Fault(where, f"the model of {key} saw '{name}', which may be this held-out slide, or its patient.",
              answer(name), lines.get(slide), "dataset")
        for slide, name in found.unstated.items()
    ]  # fmt: skip
    if found.unknown and not params.emit.allow_unknown_ancestors:
        problem = f"nobody knows whose these are, which the model of {key} saw: {', '.join(found.unknown[:5])}."
        remedy = "state `dataset` in slides.csv if they are slides of yours, or set emit.allow_unknown_ancestors: true."
        faults.append(Fault("params.yaml", problem, f"{remedy} Else emit refuses the tiles."))
    return faults
