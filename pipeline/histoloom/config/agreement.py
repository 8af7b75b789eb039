"""Whether params agree with the models that they begin from: what a later stage would refuse, said before any stage works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from histoloom.config.channels import mask_channels
from histoloom.config.denoiser_record import DenoiserFolder
from histoloom.config.package import LATENT_SCALE, is_hub_id, packaged, part_folder, root
from histoloom.config.params import Params
from histoloom.config.taken import Begun, distilled_to
from histoloom.errors import Fault, Note

_SCALES_DIFFER = 0.02
"""Share by which tile.mpp may differ from a model's scale and count as the same."""


def check_begun(params: Params, begun: Begun) -> list[Fault | Note]:
    """Faults of params that contradict what `begun` tells, and notes on what has no effect."""
    found: list[Fault | Note] = [*_unknown_sources(params), *begun.faults, *_kept_scale(params)]
    found += _contradictions(params, begun)
    if begun.denoiser:
        found += [
            *_of_the_denoiser(params, begun.denoiser),
            *_as_it_is(params, begun),
            *_windows(params, begun.denoiser),
        ]
    return found + list(_few_steps(params, begun.denoiser)) + list(_notes(params, begun))


def _fault(key: str, problem: str, remedy: str) -> Fault:
    return Fault(f"params.yaml, {key}", problem, remedy)


def _unknown_sources(params: Params) -> Iterator[Fault]:
    """Names that stand for no packaged model, no folder, and nothing on a hub."""
    config, names = params.train_encoders, params.train_denoiser.conditions
    sources = [
        ("train_autoencoder.init", params.train_autoencoder.init, "scratch", "autoencoder", True),
        ("train_denoiser.init", params.train_denoiser.init, "scratch", "denoiser", True),
        ("train_encoders.rna.init", config.rna.init if "rna" in names else "train", "train", "encoders/rna", False),
    ]
    for key, source, own, part, from_hub in sources:
        if source != own and part_folder(source, part) is None and not (from_hub and is_hub_id(source)):
            yield _nothing(key, source, f"{own}, {_models()}, a folder" + (", or a hub's ORG/NAME" if from_hub else ""))
    text = config.text.source
    if "text" in names and text != "train" and not text.startswith(("hf-hub:", "transformers:")):
        folder = Path(packaged(text, "encoders/text"))
        if not any((folder / name).is_file() for name in ("open_clip_config.json", "config.json")):
            known = f"train, {_models()}, a folder of a CLIP, hf-hub:ORG/NAME or transformers:ORG/NAME"
            yield _nothing("train_encoders.text.source", text, known)


def _kept_scale(params: Params) -> Iterator[Fault]:
    """The scale of latents that is to be kept must be known beside the autoencoder, as it is of what was trained here."""
    config = params.train_autoencoder
    folder = part_folder(config.init, "autoencoder")
    if config.scale == "kept" and not (folder and (folder / LATENT_SCALE).is_file()):
        problem = f"it is kept, and '{config.init}' doesn't tell the scale of its latents ({LATENT_SCALE})."
        yield _fault("train_autoencoder.scale", problem, "set it to measured.")


def _nothing(key: str, source: str, known: str) -> Fault:
    return _fault(key, f"'{source}' is no model that is here.", f"name {known}.")


def _models() -> str:
    """The models that come with histoloom."""
    return ", ".join(sorted(folder.name for folder in root().iterdir() if folder.is_dir())) if root().is_dir() else ""


def _contradictions(params: Params, begun: Begun) -> Iterator[Fault]:
    denoiser = begun.denoiser
    told = [
        ("train_autoencoder", "down_factor", begun.autoencoder),
        ("train_autoencoder", "latent_channels", begun.autoencoder),
    ]
    for name in ("prediction", "schedule", "train_timesteps", "map_input"):
        told.append(("train_denoiser", name, vars(denoiser.record.training) if denoiser and denoiser.record else None))
    told.append(("train_encoders.rna", "transform", begun.rna))
    for section, name, facts in told:
        place: Any = params
        for part in section.split("."):
            place = getattr(place, part)
        if facts and name in facts and facts[name] != getattr(place, name):
            remedy = f"leave it out or state {facts[name]!r}, or begin from another model."
            yield _fault(
                f"{section}.{name}", f"it is {getattr(place, name)!r}, and '{place.init}' has {facts[name]!r}.", remedy
            )


def _of_the_denoiser(params: Params, known: DenoiserFolder) -> Iterator[Fault]:
    config, autoencoder = params.train_denoiser, params.train_autoencoder
    latents_known = autoencoder.init == "scratch" or part_folder(autoencoder.init, "autoencoder") is not None
    if latents_known and autoencoder.latent_channels != known.latent_channels:
        problem = (
            f"'{config.init}' makes latents of {known.latent_channels} channels, and those of train_autoencoder (init: "
            f"{autoencoder.init}) have {autoencoder.latent_channels}."
        )
        yield _fault("train_denoiser.init", problem, "take both from one model.")
    if known.record is None:
        return
    if ("text" in known.record.channels) != ("text" in config.conditions):
        had, has = ("with", "without") if "text" in known.record.channels else ("without", "with")
        problem = f"'{config.init}' was trained {had} text, and these conditions are {has} it."
        yield _fault("train_denoiser.conditions", problem, f"adapt it {had} text.")
    if (steps := known.record.training.distilled) and (config.steps or config.distil):
        problem = f"'{config.init}' was distilled to {steps} steps, which more training would undo."
        yield _fault("train_denoiser.steps", problem, "set it to 0, or begin from what it was distilled from.")


def _few_steps(params: Params, known: DenoiserFolder | None) -> Iterator[Fault]:
    config = params.train_denoiser
    if config.few_steps and (known is None or known.few_steps is None):
        problem = f"it is true, and '{config.init}' has no few_steps."
        yield _fault(
            "train_denoiser.few_steps", problem, "set it to false, or add them: histoloom package --distilled."
        )
    steps, inside = distilled_to(config.model_dump(), known)
    for section in ("sample", "sample_slides") if steps else ():
        sampling = getattr(params, section)
        if section == "sample_slides" and not sampling.slides:
            continue
        wanted = {"scheduler": "ddim", "steps": steps} | ({"guidance": 1} if inside else {})
        for name, value in wanted.items():
            if (stated := getattr(sampling, name)) != value:
                problem = f"it is {stated!r}, and the denoiser is distilled to {steps} steps of ddim"
                problem += ", with guidance inside." if inside else "."
                yield _fault(f"{section}.{name}", problem, f"leave it out, or state {value!r}.")


def _as_it_is(params: Params, begun: Begun) -> Iterator[Fault]:
    """A denoiser that isn't trained can't learn what it doesn't know."""
    config, denoiser = params.train_denoiser, begun.denoiser
    if config.steps or denoiser is None or denoiser.record is None:
        return
    known = denoiser.record.channels
    remedy = "train it (train_denoiser.steps), or use what it knows."
    for name in (n for n in config.conditions if n not in known):
        problem = f"'{config.init}' doesn't know '{name}' and is not trained (steps: 0)."
        yield _fault("train_denoiser.conditions", problem, remedy)
    masks = mask_channels(params.tile.masks.classes, params.encode.edges, params.encode.mask_detail)
    for name, key, mine in (
        ("label", "tile.labels.classes", params.tile.labels.classes),
        ("mask", "tile.masks.classes, encode.edges or encode.mask_detail", masks),
    ):
        if name in config.conditions and (new := [c for c in mine if c not in known.get(name, mine)]):
            problem = f"'{config.init}' doesn't know {', '.join(new)} and is not trained (steps: 0)."
            yield _fault(key, problem, remedy)
    for name, key, source in (
        ("text", "train_encoders.text.source", params.train_encoders.text.source),
        ("rna", "train_encoders.rna.init", params.train_encoders.rna.init),
    ):
        if name in config.conditions and name in known and source == "train":
            problem = (
                f"it is train, and '{config.init}', which is not trained (steps: 0), doesn't know what that gives."
            )
            yield _fault(key, problem, "leave it out: the package's own is taken.")
    if begun.mpp and "magnification" not in config.conditions and _differs(params.tile.mpp, begun.mpp):
        problem = (
            f"it is {params.tile.mpp:g}, and '{config.init}', which is not trained (steps: 0), makes {begun.mpp:g}."
        )
        yield _fault("tile.mpp", problem, f"leave it out, state {begun.mpp:g}, or train it.")


def _differs(mpp: float, other: float) -> bool:
    return abs(mpp / other - 1) > _SCALES_DIFFER


def _windows(params: Params, known: DenoiserFolder) -> Iterator[Fault]:
    """Windows of a loaded denoiser; those of a new one are checked with the params."""
    latent_px, levels = params.tile.tile_px // params.train_autoencoder.down_factor, len(known.sizes["channels"])
    if problem := params.train_denoiser.windows_fault(latent_px, levels):
        yield _fault("train_denoiser.windows_latent_px", problem, "name other sides.")


def _notes(params: Params, begun: Begun) -> Iterator[Note]:
    """What is stated and has no effect, or is another model's."""
    config = params.train_denoiser
    told = [("train_autoencoder", "arch", begun.autoencoder), ("train_encoders.rna", "code", begun.rna)]
    told += [
        ("train_denoiser", name, begun.denoiser and begun.denoiser.sizes) for name in ("channels", "layers_per_block")
    ]
    for section, name, facts in told:
        place: Any = params.train_encoders.rna if section == "train_encoders.rna" else getattr(params, section)
        if facts and facts.get(name) not in (None, getattr(place, name)):
            fact = f"{_written(getattr(place, name))} has no effect: '{place.init}' has {_written(facts[name])}."
            yield Note(f"params.yaml, {section}.{name}", fact)
    if begun.mpp and config.steps and config.init != "scratch" and _differs(params.tile.mpp, begun.mpp):
        fact = f"'{config.init}' was trained at {begun.mpp:g} µm/px, and is adapted to {params.tile.mpp:g}."
        yield Note("params.yaml, tile.mpp", fact)


def _written(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
