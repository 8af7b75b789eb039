"""What a stage that comes late would refuse, as far as params alone tell: said by `validate`, before hours of work."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from histoloom.config.cluster import Cluster
from histoloom.config.package import packaged
from histoloom.config.params import Params
from histoloom.errors import Fault

_CHECKPOINTED = ("train_autoencoder", "train_denoiser")


def check_foreseen(params: Params, cluster: Cluster) -> list[Fault]:
    """Faults of params whose sections agree, in the order of the stages that would refuse them."""
    checks = (
        _training(params),
        _device(params, cluster),
        _plan(params),
        _steps(params),
        _canvases(params),
        _filters(params),
    )
    return [fault for check in (*checks, _uplift(params), _named(params)) for fault in check]


def _fault(key: str, problem: str, remedy: str) -> Fault:
    return Fault(f"params.yaml, {key}", problem, remedy)


def _training(params: Params) -> Iterator[Fault]:
    config, tile = params.train_denoiser, params.tile
    latent_px, levels = tile.tile_px // params.train_autoencoder.down_factor, len(config.channels)
    if "label" in config.conditions and not tile.labels.classes:
        problem = "it has label, and tile.labels.classes names none."
        yield _fault("train_denoiser.conditions", problem, "take label out, or name the classes.")
    if config.init == "scratch" and latent_px % 2 ** (levels - 1):
        problem = f"latents of a tile are {latent_px} px, which can't be halved {levels - 1} times."
        yield _fault("train_denoiser.channels", problem, "name fewer, or cut tiles of another size.")
    elif config.init == "scratch" and (problem := config.windows_fault(latent_px, levels)):
        yield _fault("train_denoiser.windows_latent_px", problem, "name other sides.")
    attending = min(config.channels[1:] or config.channels)
    if config.init == "scratch" and "text" in config.conditions and config.attention_head_dim > attending:
        problem = f"it is {config.attention_head_dim}, and a level that attends to the text has {attending} channels."
        yield _fault("train_denoiser.attention_head_dim", problem, "state less, or more channels.")
    if "text" in config.conditions and params.train_encoders.text.source == "train":
        text = params.train_encoders.text
        if text.width % text.heads:
            yield _fault(
                "train_encoders.text.heads", f"{text.heads} don't divide the width, {text.width}.", "name a divisor."
            )
        if not tile.quoted:
            problem = "it quotes nothing, so that all captions are one, and a text tower has nothing to tell apart."
            yield _fault("tile.caption", problem, "quote {composition} or {label}, or take text out of the conditions.")
    for name in _CHECKPOINTED:
        if (place := getattr(params, name).resume_from) and not Path(place).is_dir():
            yield _fault(f"{name}.resume_from", f"there is no folder '{place}'.", "mend it, or leave it out.")


def _device(params: Params, cluster: Cluster) -> Iterator[Fault]:
    half = [
        f"{section}.{key}"
        for section, key in (
            ("train_autoencoder", "mixed_precision"), ("train_denoiser", "mixed_precision"), ("encode", "precision"),
            ("sample", "precision"), ("sample_slides", "precision"),
        )
        if getattr(getattr(params, section), key) == "fp16"
    ]  # fmt: skip
    asks = half + (["train_denoiser.attention"] if params.train_denoiser.attention == "xformers" else [])
    if not asks and cluster.device != "cuda":
        return
    import torch  # which takes seconds, and is asked of few studies alone

    if torch.cuda.is_available() and cluster.device != "cpu":
        return
    if cluster.device == "cuda":
        yield Fault(
            "cluster.yaml, device", "it is cuda, and torch sees no GPU.", "see `histoloom doctor`, or set it to auto."
        )
    for key in asks:
        known = "bf16 or fp32 (no, in training)" if key in half else "auto"
        stated = "fp16" if key in half else "xformers"
        yield _fault(key, f"{stated} needs a GPU, and this study runs on a CPU.", f"set it to {known}.")


def _plan(params: Params) -> Iterator[Fault]:
    plan = params.plan
    if params.tile.labels.source == "none" and plan.target != "none":
        problem = f"it is {plan.target}, and no tile has a label to count (tile.labels.source: none)."
        yield _fault("plan.target", problem, "set it to none, and state plan.requests.")
    elif plan.target == "none" and not plan.requests and not plan.evaluation_tiles:
        remedy = "state plan.requests, plan.evaluation_tiles, or another target."
        yield _fault("plan.target", "it is none, and nothing else is asked for: there is nothing to make.", remedy)
    elif (
        plan.target in ("largest", "median")
        and len(params.tile.labels.classes) == 1
        and not plan.requests
        and not plan.evaluation_tiles
    ):
        problem = f"it is {plan.target}, and there is one class, which no other outnumbers: there is nothing to make."
        yield _fault("plan.target", problem, "state a number, plan.requests or plan.evaluation_tiles.")
    for number, request in enumerate(plan.requests):
        for name in (n for n in request.change.leave_out if n in ("mask", "image")):
            remedy = f"sample.guidance can leave it out of all ({name}: 0)."
            key = f"plan.requests[{number}].change.leave_out"
            yield _fault(key, f"'{name}' can't be left out of single tiles.", remedy)


def _steps(params: Params) -> Iterator[Fault]:
    """A sampler takes its steps from those of training."""
    most, distil = params.train_denoiser.train_timesteps, params.train_denoiser.distil
    stated = {"sample.steps": params.sample.steps}
    stated |= {"sample_slides.steps": params.sample_slides.steps} if params.sample_slides.slides else {}
    stated |= {"train_denoiser.distil.teacher_steps": distil.teacher_steps} if distil else {}
    for key, steps in stated.items():
        if steps > most:
            problem = f"it is {steps}, and train_denoiser.train_timesteps is {most}."
            yield _fault(key, problem, f"state {most} or fewer.")


def _canvases(params: Params) -> Iterator[Fault]:
    config, factor = params.sample_slides, params.train_autoencoder.down_factor
    window = config.window_latent_px or params.tile.tile_px // factor
    if not config.slides:
        return
    if max(config.halos(window)) > window // 4:
        problem = f"it is {max(config.halos(window))}, more than a quarter of the window ({window})."
        yield _fault("sample_slides.halo_latent_px", problem, "state less, or leave it out.")
    for slide in config.slides:
        if min(slide.width_px, slide.height_px) < window * factor:
            problem = f"it is {slide.width_px} x {slide.height_px} px, smaller than a window of {window * factor} px."
            remedy = "make it larger, or lower sample_slides.window_latent_px."
            yield _fault(f"sample_slides.slides, '{slide.name}'", problem, remedy)


def _filters(params: Params) -> Iterator[Fault]:
    use, names, text = params.filter.use, params.train_denoiser.conditions, params.train_encoders.text.source
    for name in ("mask", "text", "rna"):
        if name in use and name not in names:
            yield _fault("filter.use", f"it names {name}, which is none of train_denoiser.conditions.", "take it out.")
    both_towers = text == "train" or (Path(packaged(text, "encoders/text")) / "open_clip_config.json").is_file()
    if "text" in use and "text" in names and not both_towers:
        problem = f"it names text, and '{text}' is no folder of an open_clip model with both towers."
        yield _fault("filter.use", problem, "take text out, or set train_encoders.text.source to train or a package.")
    if "review" in use and not Path("reviews/verdicts.csv").is_file():
        problem = "it names review, and there is no reviews/verdicts.csv."
        yield _fault("filter.use", problem, "run histoloom review make and score, or take it out.")


def _uplift(params: Params) -> Iterator[Fault]:
    config, classes = params.uplift, params.tile.labels.classes
    if not config.seeds:
        return
    if config.task == "mask" and params.tile.masks.source == "none":
        yield _fault(
            "uplift.task", "it is mask, and tile.masks.source is none.", "set tile.masks, or uplift.task: label."
        )
    if config.task == "label" and (len(classes) < 2 or params.tile.labels.source == "none"):
        problem = f"a classifier needs two classes of labels, and tile.labels has {len(classes)}."
        yield _fault("uplift.seeds", problem, "set it to 0, or name more classes.")


def _named(params: Params) -> Iterator[Fault]:
    """Programs, files and folders that params name and that aren't there."""
    for key, command in (("tile.summarise", params.tile.summarise), ("uplift.command", params.uplift.command)):
        try:
            program = shlex.split(command)[0] if command else None
        except (ValueError, IndexError):
            yield _fault(key, f"'{command}' is no command line.", "close its quotes.")
            continue
        if program and shutil.which(program) is None:
            yield _fault(key, f"there is no program '{program}'.", "install it, or mend the command.")
    used = {"train_filters.features": params.train_filters.features, "evaluate.features": params.evaluate.features}
    if "image" in params.train_denoiser.conditions:
        used["train_encoders.image.source"] = params.train_encoders.image.source
    for key, name in used.items():
        if "/" in name and not name.startswith(("timm:", "hf-hub:", "transformers:")) and not Path(name).is_dir():
            yield _fault(key, f"there is no folder '{name}'.", "mend it, or name an extractor.")
