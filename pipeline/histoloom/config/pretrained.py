"""What pretrained models tell of themselves, filled in where params leave it out.

`train_denoiser.init` names a package: what it tells stands for every key that params leave out. It is filled in before params are
checked. So checks and stages see whole params.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from histoloom.config.channels import BACKGROUND, EDGE, read_channels
from histoloom.config.denoiser_record import DenoiserFolder, read_denoiser_folder
from histoloom.config.file_keys import model_place
from histoloom.config.package import (
    TARGET_FACTS,
    autoencoder_facts,
    has_part,
    part_folder,
    read_json,
    rna_facts,
    root,
    scales_of,
    text_facts,
    tile_encoder_of,
)
from histoloom.config.params import Params
from histoloom.config.train_denoiser import DiffusedData, Distil
from histoloom.errors import Fault, HistoloomError, key_fault

T = TypeVar("T")


@dataclass
class Pretrained:
    """What is known of the pretrained models that params name; None where they name none, or where nothing is known.

    scales : those that they were trained at, µm/px, the first of them params' own.
    faults : of folders that are damaged.
    """

    autoencoder: dict[str, Any] | None = None
    denoiser: DenoiserFolder | None = None
    text: dict[str, Any] | None = None
    rna: dict[str, Any] | None = None
    scales: tuple[float, ...] = ()
    faults: list[Fault] = field(default_factory=list)


class NamedModel(NamedTuple):
    """A pretrained model that params name: the part of it that is read, and the revision of a hub's."""

    source: str
    part: str
    revision: str | None = None


def named_models(params: Params) -> dict[str, NamedModel]:
    """Key to the pretrained model that it names; of encoders, where their condition is in use."""
    encoders, names = params.train_encoders, params.train_denoiser.conditions
    tower = encoders.image.source
    text, autoencoder, denoiser = encoders.text, params.train_autoencoder, params.train_denoiser
    named = {
        "train_denoiser.init": NamedModel(denoiser.init, "denoiser", denoiser.revision),
        "train_autoencoder.init": NamedModel(autoencoder.init, "autoencoder", autoencoder.revision),
        "train_encoders.text.source": NamedModel(
            text.source if "text" in names else "train", "encoders/text", text.revision
        ),
        "train_encoders.rna.init": NamedModel(encoders.rna.init if "rna" in names else "train", "encoders/rna"),
        "train_encoders.image.source": NamedModel(
            tower if "image" in denoiser.encoded and tile_encoder_of(tower) else "train", "encoders/image"
        ),
    }
    own = {"autoencoder": "scratch", "denoiser": "scratch"}
    return {key: model for key, model in named.items() if model.source != own.get(model.part, "train")}


def fill_in(written: Any, root: Path) -> tuple[Any, Pretrained]:
    """Params as they were written, with what their pretrained models tell; `written` itself is left as it is.

    root : the folder that names of files are relative to.
    """
    if not isinstance(written, dict):
        return written, Pretrained()
    filling = _Filling(deepcopy(written), root)
    filling.fill()
    return filling.params, filling.told


@dataclass
class _Filling:
    """Params while they are filled in, and what the models told."""

    params: dict[str, Any]
    root: Path
    told: Pretrained = field(default_factory=Pretrained)

    def fill(self) -> None:
        init = self.source("train_denoiser.init", "scratch")
        known = self.read("denoiser", "train_denoiser.init", init, read_denoiser_folder) if init else None
        for part, key in (
            ("autoencoder", "train_autoencoder.init"),
            ("encoders/text", "train_encoders.text.source"),
            ("encoders/rna", "train_encoders.rna.init"),
            ("encoders/image", "train_encoders.image.source"),
        ):
            without = part == "autoencoder" and known and known.record and known.record.training.target != "latents"
            at = self.get("train_denoiser.revision")
            if init and self.has(init, "denoiser", at) and self.has(init, part, at) and not without:
                unstated = self.get(key) is None
                # A tower's source that is a folder is written with a slash.
                own_place = part == "encoders/image" and "/" not in init and not (root() / init).is_dir()
                self.take(key, f"./{init}" if own_place else init)
                if unstated and part in ("autoencoder", "encoders/text"):
                    self.take(f"{key.rpartition('.')[0]}.revision", at)
        self.fill_autoencoder()
        if known:
            self.told.denoiser = known
            self.fill_denoiser(known)
        self.fill_encoders()
        for source in filter(None, (init, self.source("train_autoencoder.init", "scratch"))):
            self.told.scales = self.told.scales or scales_of(model_place(source, self.root))
        self.take("tile.mpp", next(iter(self.told.scales), None))
        self.fill_steps()
        self.fill_without_labels()

    def fill_autoencoder(self) -> None:
        if source := self.source("train_autoencoder.init", "scratch"):
            self.told.autoencoder = self.read("autoencoder", "train_autoencoder.init", source, autoencoder_facts)
        self.take_all("train_autoencoder", self.told.autoencoder)

    def fill_denoiser(self, known: DenoiserFolder) -> None:
        self.take_all("train_denoiser", known.sizes)
        if known.record is None:
            return
        self.take("train_denoiser.target", self.diffused(known.record.training.target))
        for name in ("backbone", "prediction", "schedule", "betas", "train_timesteps", "map_input"):
            self.take(f"train_denoiser.{name}", getattr(known.record.training, name))
        conditions = known.record.channels
        labelled, masked = self.get("tile.labels.source") != "none", self.get("tile.masks.source") not in (None, "none")
        has = {
            "label": labelled,
            "mask": masked,
            "counts": masked,
            "rna": self.get("train_encoders.rna.table") is not None,
            "genotype": self.get("train_encoders.genotype.table") is not None,
            **{name: bool(self.get(f"train_encoders.{name}.columns")) for name in ("cohort", "number")},
        }
        usable = [name for name in conditions if has.get(name, True)]
        self.take("train_denoiser.conditions", usable or list(conditions))
        if "label" in conditions and labelled:
            self.take("tile.labels.classes", list(conditions["label"]))
        if "mask" in conditions and masked:
            names, detail = read_channels(conditions["mask"])
            self.take("tile.masks.classes", [name for name in names if name not in (BACKGROUND, EDGE)])
            if "mask" in (self.get("train_denoiser.conditions") or ()):
                self.take("encode.mask_detail", detail)
                self.take("encode.edges", EDGE in names)

    def diffused(self, name: str) -> str | dict[str, Any]:
        """What a package's denoiser diffuses, as params state it."""
        place = model_place(self.get("train_denoiser.init"), self.root)
        folder = part_folder(place, "autoencoder", self.get("train_denoiser.revision"))
        facts = read_json(folder / TARGET_FACTS) if folder and (folder / TARGET_FACTS).is_file() else {}
        stated = {key: facts[key] for key in DiffusedData.model_fields if key in facts}
        return {"name": name, **stated} if stated else name

    def fill_encoders(self) -> None:
        text, rna = self.source("train_encoders.text.source", "train"), self.source("train_encoders.rna.init", "train")
        if text and self.has(text, "encoders/text", self.get("train_encoders.text.revision")):
            self.told.text = self.read("encoders/text", "train_encoders.text.source", text, text_facts)
        if rna:
            self.told.rna = self.read("encoders/rna", "train_encoders.rna.init", rna, rna_facts)
        self.take_all("train_encoders.text", self.told.text)
        self.take_all("train_encoders.rna", self.told.rna)

    def fill_steps(self) -> None:
        """How a denoiser of few steps is sampled."""
        steps, guided_inside = distilled_to(self.get("train_denoiser") or {}, self.told.denoiser)
        for section in ("sample", "sample_slides") if steps else ():
            self.take(f"{section}.scheduler", "ddim")
            self.take(f"{section}.steps", steps)
            self.take(f"{section}.guidance", 1 if guided_inside else None)

    def fill_without_labels(self) -> None:
        """What defaults would ask of labels that there aren't."""
        classes = self.get("tile.labels.classes")
        unlabelled = self.get("tile.labels.source") == "none" or classes == []
        if unlabelled:
            self.take("train_denoiser.conditions", ["text"])
        alone = isinstance(classes, list) and len(classes) < 2
        if (unlabelled or alone) and self.get("uplift.task") != "mask":
            self.take("uplift.seeds", 0)

    def get(self, key: str) -> Any:
        """The value at a key such as 'tile.mpp'; None where it is left out, or written as null."""
        value: Any = self.params
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def source(self, key: str, own: str) -> str | None:
        """The pretrained model that a key names; None where it names none, which `own` says too."""
        value = self.get(key)
        return value if isinstance(value, str) and value not in ("", own) else None

    def has(self, source: str, part: str, revision: str | None) -> bool:
        return has_part(model_place(source, self.root), part, revision)

    def read(self, part: str, key: str, source: str, read: Callable[[Path], T]) -> T | None:
        """What a part's folder tells; a damaged one becomes a fault of the key that names it."""
        revision = self.get(f"{key.rpartition('.')[0]}.revision")
        folder = part_folder(model_place(source, self.root), part, revision)
        try:
            return read(folder) if folder else None
        except HistoloomError as error:
            self.told.faults.append(key_fault(key, str(error), "fetch or package the model again, or name another."))
            return None

    def take_all(self, section: str, facts: dict[str, Any] | None) -> None:
        for name, value in (facts or {}).items():
            self.take(f"{section}.{name}", value)

    def take(self, key: str, value: Any) -> None:
        """State a value that isn't stated. A section that is no mapping is left to the checks."""
        *sections, name = key.split(".")
        if value is None or self.get(key) is not None:
            return
        place = self.params
        for section in sections:
            if place.get(section) is None:
                place[section] = {}
            if not isinstance(place[section], dict):
                return
            place = place[section]
        place[name] = list(value) if isinstance(value, tuple) else value


def distilled_to(train_denoiser: dict[str, Any], known: DenoiserFolder | None) -> tuple[int | None, bool]:
    """To how many steps the denoiser will have been distilled, None for one that wasn't; and whether guidance is inside it."""
    if (distil := train_denoiser.get("distil")) is not None:
        return (distil.get("steps") or Distil.model_fields["steps"].default if isinstance(distil, dict) else None), True
    if known and train_denoiser.get("few_steps") is True:
        return known.few_steps, train_denoiser.get("steps") == 0
    return (known.record.training.distilled if known and known.record else None), True
