"""Whether params agree with the pretrained models that they name: what a later stage would refuse, said before any stage works."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from histoloom.config.channels import mask_channels
from histoloom.config.denoiser_record import DenoiserFolder
from histoloom.config.file_keys import model_place
from histoloom.config.package import (
    LATENT_SCALE,
    image_facts,
    is_hub_id,
    latent_scale,
    package_names,
    packaged,
    part_folder,
    text_width,
    tile_encoder_of,
)
from histoloom.config.params import Params
from histoloom.config.pretrained import NamedModel, Pretrained, distilled_to, named_models
from histoloom.config.train_denoiser import DiffusedData
from histoloom.errors import Fault, HistoloomError, Note, Problem, key_fault

_DECIDED = (
    "train_autoencoder.down_factor",
    "train_autoencoder.latent_channels",
    *(
        f"train_denoiser.{name}"
        for name in ("target", "backbone", "prediction", "schedule", "betas", "train_timesteps", "map_input")
    ),
    "train_encoders.rna.transform",
)
"""Keys that a model has decided: another value is a fault."""
_SIZES = (
    "train_autoencoder.arch",
    "train_encoders.rna.code",
    "train_denoiser.channels",
    "train_denoiser.layers_per_block",
)
"""Keys of what is built from scratch: beside a model another value has no effect."""
_SCALES_DIFFER = 0.02
"""Fraction by which tile.mpp may differ from a model's scale and count as the same."""


def check_agreement(params: Params, told: Pretrained) -> list[Fault | Note]:
    """Faults of params that contradict what the models told, and notes on what has no effect."""
    denoiser = told.denoiser
    before, after = (
        [_unknown_models(named_models(params)), _damaged_tower(params)],
        [_kept_scale(params), _contradictions(params, told)],
    )
    if denoiser:
        after += [_of_the_denoiser(params, denoiser), _untrained(params, told, denoiser), _windows(params, denoiser)]
    after.append(_few_steps(params, denoiser))
    first, last = ([key_fault(*each) for check in checks for each in check] for checks in (before, after))
    return [*first, *told.faults, *last, *_notes(params, told)]


def unknown_inits(filled: Any, root: Path) -> list[Fault]:
    """Names of no model in params that could not be read whole: what they leave out, the model was to tell.

    filled : params as `fill_in` gives them. root : the folder that names of files are relative to.
    """
    named = {}
    for part in ("denoiser", "autoencoder"):
        config = filled.get(f"train_{part}") if isinstance(filled, dict) else None
        init, revision = (config.get("init"), config.get("revision")) if isinstance(config, dict) else (None, None)
        if isinstance(init, str) and init not in ("", "scratch"):
            named[f"train_{part}.init"] = NamedModel(model_place(init, root), part, revision)
    return [key_fault(*each) for each in _unknown_models(named)]


def _unknown_models(named: dict[str, NamedModel]) -> Iterator[Problem]:
    """Names that stand for no packaged model, no folder, and nothing on a hub."""
    models = ", ".join(package_names())
    for key, (source, part, revision) in named.items():
        own, more = ("scratch", ", or a hub's ORG/NAME") if key.endswith("er.init") else ("train", "")
        known = part_folder(source, part, revision) is not None or (more != "" and is_hub_id(source))
        if part == "encoders/text":
            more = " of a CLIP, hf-hub:ORG/NAME or transformers:ORG/NAME"
            files = (Path(packaged(source, part, revision)) / name for name in ("open_clip_config.json", "config.json"))
            known = source.startswith(("hf-hub:", "transformers:")) or any(file.is_file() for file in files)
        if not known:
            yield key, f"'{source}' is no model that is here.", f"name {own}, {models}, a folder{more}."


def _damaged_tower(params: Params) -> Iterator[Problem]:
    folder = tile_encoder_of(params.train_encoders.image.source)
    if folder is None or "image" not in params.train_denoiser.encoded:
        return
    try:
        image_facts(folder)
    except HistoloomError as error:
        remedy = "fetch or package the model again, or name another."
        yield "train_encoders.image.source", str(error), remedy


def _kept_scale(params: Params) -> Iterator[Problem]:
    """The scale of latents that is to be kept must be known beside the autoencoder, as it is of what was trained here."""
    config = params.train_autoencoder
    folder = part_folder(config.init, "autoencoder", config.revision)
    if config.scale == "kept" and not (folder and latent_scale(folder)):
        problem = f"it is kept, and '{config.init}' doesn't tell the scale of its latents ({LATENT_SCALE})."
        yield "train_autoencoder.scale", problem, "set it to measured."


def _contradictions(params: Params, told: Pretrained) -> Iterator[Problem]:
    for key, init, stated, has in _differing(params, told, _DECIDED):
        remedy = f"leave it out or state {has!r}, or name another model in init."
        yield key, f"it is {stated!r}, and '{init}' has {has!r}.", remedy
    record, config = told.denoiser and told.denoiser.record, params.train_denoiser
    if record and record.training.betas is None and config.betas:
        problem = f"it is {list(config.betas)}, and '{config.init}' has those of its schedule."
        yield "train_denoiser.betas", problem, "leave it out, or name another model in init."


def _differing(params: Params, told: Pretrained, keys: tuple[str, ...]) -> Iterator[tuple[str, str, Any, Any]]:
    """Keys whose value is another than the model's: key, model, the key's value, the model's."""
    denoiser = told.denoiser and {
        **told.denoiser.sizes,
        **(vars(told.denoiser.record.training) if told.denoiser.record else {}),
    }
    facts = {"train_autoencoder": told.autoencoder, "train_denoiser": denoiser, "train_encoders.rna": told.rna}
    for key in keys:
        section, _, name = key.rpartition(".")
        config, has = _section(params, section), (facts[section] or {}).get(name)
        stated = getattr(config, name)
        stated = stated.name if isinstance(stated, DiffusedData) else stated
        if has not in (None, stated):
            yield key, config.init, stated, has


def _section(params: Params, name: str) -> Any:
    return reduce(getattr, name.split("."), params)


def _of_the_denoiser(params: Params, known: DenoiserFolder) -> Iterator[Problem]:
    config, autoencoder = params.train_denoiser, params.train_autoencoder
    latents_known = autoencoder.init == "scratch" or part_folder(autoencoder.init, "autoencoder", autoencoder.revision)
    if config.target.name == "latents" and latents_known and autoencoder.latent_channels != known.latent_channels:
        problem = (
            f"'{config.init}' makes latents of {known.latent_channels} channels, and those of train_autoencoder (init: "
            f"{autoencoder.init}) have {autoencoder.latent_channels}."
        )
        yield "train_denoiser.init", problem, "take both from one model."
    if known.record is None:
        return
    if ("text" in known.record.channels) != ("text" in config.conditions):
        had, has = ("with", "without") if "text" in known.record.channels else ("without", "with")
        problem = f"'{config.init}' was trained {had} text, and these conditions are {has} it."
        yield "train_denoiser.conditions", problem, f"adapt it {had} text."
    if (steps := known.record.training.distilled) and (config.steps or config.distil):
        problem = f"'{config.init}' was distilled to {steps} steps, which more training would undo."
        yield "train_denoiser.steps", problem, "set it to 0, or name the model that it was distilled from."


def _untrained(params: Params, told: Pretrained, known: DenoiserFolder) -> Iterator[Problem]:
    """A denoiser that is taken as it is can't learn what it doesn't know."""
    config, init = params.train_denoiser, f"'{params.train_denoiser.init}'"
    if config.steps or known.record is None:
        return
    knows = known.record.channels
    remedy = "train it (train_denoiser.steps), or use what it knows."
    for name in (n for n in config.conditions if n not in knows):
        yield "train_denoiser.conditions", f"{init} doesn't know '{name}' and is not trained (steps: 0).", remedy
    masks = mask_channels(params.tile.masks.classes, edges=params.encode.edges, detail=params.encode.mask_detail)
    for name, key, mine in (
        ("label", "tile.labels.classes", params.tile.labels.classes),
        ("mask", "tile.masks.classes, encode.edges or encode.mask_detail", masks),
    ):
        if name in config.conditions and (new := [c for c in mine if c not in knows.get(name, mine)]):
            yield key, f"{init} doesn't know {', '.join(new)} and is not trained (steps: 0).", remedy
    for name, key, source in (
        ("text", "train_encoders.text.source", params.train_encoders.text.source),
        ("rna", "train_encoders.rna.init", params.train_encoders.rna.init),
        ("image", "train_encoders.image.source", params.train_encoders.image.source),
    ):
        if name in config.conditions and name in knows and source == "train":
            problem = f"it is train, and {init}, which is not trained (steps: 0), doesn't know what that gives."
            yield key, problem, "leave it out: the package's own is taken."
    yield from _as_the_pipeline_has_it(params, told, known)
    if told.scales and "magnification" not in config.conditions and _differ(params.tile.mpp, told.scales[:1]):
        problem = f"it is {params.tile.mpp:g}, and {init}, which is not trained (steps: 0), makes {told.scales[0]:g}."
        yield "tile.mpp", problem, f"leave it out, state {told.scales[0]:g}, or train it."


def _as_the_pipeline_has_it(params: Params, told: Pretrained, known: DenoiserFolder) -> Iterator[Problem]:
    """What an untrained denoiser reads must be as it was: the tokens of captions, and of a pipeline the latents' scale."""
    init, text = f"'{params.train_denoiser.init}', which is not trained (steps: 0)", params.train_encoders.text
    folder = (
        part_folder(text.source, "encoders/text", text.revision) if "text" in params.train_denoiser.conditions else None
    )
    width = text_width(folder) if folder else None
    sizes = {spec.name: spec.size for spec in known.record.conditions} if known.record else {}
    if width and width != sizes.get("text", width):
        problem = f"its tokens have {width} channels, and {init}, reads {sizes['text']}."
        yield "train_encoders.text.source", problem, "name the text tower that it was trained with, or train it."
    padding = (told.text or {}).get("padding", text.padding)
    if folder and padding != text.padding:
        yield "train_encoders.text.padding", f"it is {text.padding}, and {init}, has {padding}.", "leave it out."
    for key, has in (told.autoencoder or {}).items():
        stated = getattr(params.train_autoencoder, key)
        if key in ("scale", "steps") and stated != has:
            problem = f"it is {stated}, and {init}, knows the latents of '{params.train_autoencoder.init}' as they are."
            yield f"train_autoencoder.{key}", problem, f"leave it out, or state {has}."


def _differ(mpp: float, others: tuple[float, ...]) -> bool:
    return all(abs(mpp / other - 1) > _SCALES_DIFFER for other in others)


def _windows(params: Params, known: DenoiserFolder) -> Iterator[Problem]:
    """Windows of a loaded denoiser; those of a new one are checked with the params."""
    latent_px, halved = params.tile.tile_px // params.factor, 2 ** (len(known.sizes["channels"]) - 1)
    if problem := params.train_denoiser.windows_fault(latent_px, halved):
        yield "train_denoiser.windows_latent_px", problem, "name other sides."


def _few_steps(params: Params, known: DenoiserFolder | None) -> Iterator[Problem]:
    config = params.train_denoiser
    if config.few_steps and (known is None or known.few_steps is None):
        problem = f"it is true, and '{config.init}' has no few_steps."
        yield "train_denoiser.few_steps", problem, "set it to false, or add them: histoloom package --distilled."
    steps, guided_inside = distilled_to(config.model_dump(), known)
    sections = ["sample", "sample_slides"] if params.sample_slides.slides else ["sample"]
    for section in sections if steps else ():
        for name, value in {"scheduler": "ddim", "steps": steps, "guidance": 1}.items():
            stated = getattr(_section(params, section), name)
            if stated != value and (guided_inside or name != "guidance"):
                inside = ", with guidance inside" if guided_inside else ""
                problem = f"it is {stated!r}, and the denoiser is distilled to {steps} steps of ddim{inside}."
                yield f"{section}.{name}", problem, f"leave it out, or state {value!r}."


def _notes(params: Params, told: Pretrained) -> Iterator[Note]:
    """What is stated and has no effect, or is another model's."""
    config = params.train_denoiser
    for key, init, stated, has in _differing(params, told, _SIZES):
        yield Note(f"params.yaml, {key}", f"{_written(stated)} has no effect: '{init}' has {_written(has)}.")
    if told.scales and config.steps and config.init != "scratch" and _differ(params.tile.mpp, told.scales):
        scales = ", ".join(f"{mpp:g}" for mpp in sorted(told.scales))
        fact = f"'{config.init}' was trained at {scales} µm/px, and is adapted to {params.tile.mpp:g}."
        yield Note("params.yaml, tile.mpp", fact)


def _written(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
