"""What params leave unstated and the models they begin from tell, and what contradicts these models.

`train_denoiser.init` names a package: what it tells stands for every key that params leave out. It is filled in before params are
checked, so that their checks and all stages see whole params.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from histoloom.config.channels import BACKGROUND, EDGE, read_channels
from histoloom.config.denoiser_record import DenoiserFolder, read_denoiser_folder
from histoloom.config.package import autoencoder_facts, has_part, part_folder, rna_facts, scale_of, text_facts
from histoloom.config.train_denoiser import Distil
from histoloom.errors import Fault, HistoloomError


@dataclass
class Begun:
    """What is known of the models that params begin from; None where they begin from scratch, or where nothing is known.

    faults : of folders that are damaged.
    """

    autoencoder: dict[str, Any] | None = None
    denoiser: DenoiserFolder | None = None
    text: dict[str, Any] | None = None
    rna: dict[str, Any] | None = None
    mpp: float | None = None
    faults: list[Fault] = field(default_factory=list)

    def read(self, part: str, key: str, source: str, read) -> Any:
        """What a part's folder tells, a damaged one becoming a fault of the key that names it."""
        folder = part_folder(source, part)
        try:
            return read(folder) if folder else None
        except HistoloomError as error:
            remedy = "fetch or package the model again, or name another."
            self.faults.append(Fault(f"params.yaml, {key}", str(error), remedy))
            return None


def take(written: Any) -> tuple[Any, Begun]:
    """Params as they were written, with what the models tell that they begin from; `written` itself is left as it is."""
    filled, begun = deepcopy(written), Begun()
    if not isinstance(filled, dict):
        return filled, begun
    init = _source(filled, "train_denoiser.init", "scratch")
    for part, key in (
        ("autoencoder", "train_autoencoder.init"),
        ("encoders/text", "train_encoders.text.source"),
        ("encoders/rna", "train_encoders.rna.init"),
    ):
        if init and has_part(init, "denoiser") and has_part(init, part):
            _take(filled, key, init)
    _take_autoencoder(filled, begun)
    if init:
        begun.denoiser = begun.read("denoiser", "train_denoiser.init", init, read_denoiser_folder)
        if begun.denoiser:
            _take_denoiser(filled, begun.denoiser)
    _take_encoders(filled, begun)
    for source in filter(None, (init, _source(filled, "train_autoencoder.init", "scratch"))):
        begun.mpp = begun.mpp or begun.read("", "train_denoiser.init", source, lambda _, s=source: scale_of(s))
    _take(filled, "tile.mpp", begun.mpp)
    _take_steps(filled, begun.denoiser)
    _take_for_classes(filled)
    return filled, begun


def _take_autoencoder(filled: dict, begun: Begun) -> None:
    source = _source(filled, "train_autoencoder.init", "scratch")
    if source:
        begun.autoencoder = begun.read("autoencoder", "train_autoencoder.init", source, autoencoder_facts)
    for name, value in (begun.autoencoder or {}).items():
        _take(filled, f"train_autoencoder.{name}", value)


def _take_denoiser(filled: dict, known: DenoiserFolder) -> None:
    for name, value in known.sizes.items():
        _take(filled, f"train_denoiser.{name}", value)
    if known.record is None:
        return
    for name in ("prediction", "schedule", "train_timesteps", "map_input"):
        _take(filled, f"train_denoiser.{name}", getattr(known.record.training, name))
    conditions = known.record.channels
    masked = _stated(filled, "tile.masks.source") not in (None, "none")
    has = {
        "label": _stated(filled, "tile.labels.source") != "none",
        "mask": masked,
        "rna": _stated(filled, "train_encoders.rna.table") is not None,
        "genotype": _stated(filled, "train_encoders.genotype.table") is not None,
    }
    usable = [name for name in conditions if has.get(name, True)]
    _take(filled, "train_denoiser.conditions", usable or list(conditions))
    if "label" in conditions and _stated(filled, "tile.labels.source") != "none":
        _take(filled, "tile.labels.classes", list(conditions["label"]))
    if "mask" in conditions and masked:
        names, detail = read_channels(conditions["mask"])
        _take(filled, "tile.masks.classes", [name for name in names if name not in (BACKGROUND, EDGE)])
        if "mask" in (_stated(filled, "train_denoiser.conditions") or ()):
            _take(filled, "encode.mask_detail", detail)
            _take(filled, "encode.edges", EDGE in names)


def _take_encoders(filled: dict, begun: Begun) -> None:
    text, rna = (_source(filled, f"train_encoders.{key}", "train") for key in ("text.source", "rna.init"))
    if text and has_part(text, "encoders/text"):
        begun.text = begun.read("encoders/text", "train_encoders.text.source", text, text_facts)
    if rna:
        begun.rna = begun.read("encoders/rna", "train_encoders.rna.init", rna, rna_facts)
    for section, facts in (("text", begun.text), ("rna", begun.rna)):
        for name, value in (facts or {}).items():
            _take(filled, f"train_encoders.{section}.{name}", value)


def _take_steps(filled: dict, known: DenoiserFolder | None) -> None:
    """How a denoiser of few steps is sampled, where params don't say it."""
    steps, inside = distilled_to(_stated(filled, "train_denoiser") or {}, known)
    for section in ("sample", "sample_slides") if steps else ():
        _take(filled, f"{section}.scheduler", "ddim")
        _take(filled, f"{section}.steps", steps)
        _take(filled, f"{section}.guidance", 1 if inside else None)


def _take_for_classes(filled: dict) -> None:
    """What defaults would ask of labels that there aren't."""
    classes = _stated(filled, "tile.labels.classes")
    unlabelled = _stated(filled, "tile.labels.source") == "none" or classes == []
    if unlabelled:
        _take(filled, "train_denoiser.conditions", ["text"])
    alone = isinstance(classes, list) and len(classes) < 2
    if (unlabelled or alone) and _stated(filled, "uplift.task") != "mask":
        _take(filled, "uplift.seeds", 0)


def distilled_to(train_denoiser: dict, known: DenoiserFolder | None) -> tuple[int | None, bool]:
    """The steps that the denoiser will have been distilled to, None for one that wasn't; and whether guidance is inside it."""
    if (distil := train_denoiser.get("distil")) is not None:
        return (distil.get("steps") or Distil.model_fields["steps"].default if isinstance(distil, dict) else None), True
    if known and train_denoiser.get("few_steps") is True:
        return known.few_steps, train_denoiser.get("steps") == 0
    return (known.record.training.distilled if known and known.record else None), True


def _stated(params: dict, key: str) -> Any:
    """The value at a key such as 'tile.mpp'; None where it is left out, or written as null."""
    value: Any = params
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _source(params: dict, key: str, scratch: str) -> str | None:
    """What a key names to begin from; None where that is nothing."""
    value = _stated(params, key)
    return value if isinstance(value, str) and value not in ("", scratch) else None


def _take(params: dict, key: str, value: Any) -> None:
    """State a value that isn't stated. A section that is no mapping is left to the checks."""
    *sections, name = key.split(".")
    if value is None or _stated(params, key) is not None:
        return
    place = params
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        if not isinstance(place[section], dict):
            return
        place = place[section]
    place[name] = list(value) if isinstance(value, tuple) else value
