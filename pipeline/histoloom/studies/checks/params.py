"""What stages that come late would refuse, as far as params and this machine tell."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from histoloom.config import Cluster, Params
from histoloom.config.learners import DEFAULT_LEARNERS
from histoloom.config.package import packaged, tile_encoder_of
from histoloom.errors import Fault, Problem, key_fault
from histoloom.registry import registered


def check_stages(params: Params, cluster: Cluster, reviews: Path) -> list[Fault]:
    """Faults of params whose sections agree, in the order of the stages that would refuse them.

    reviews : the table of what readers said, which the filter `review` needs.
    """
    out: list[Fault] = []
    for name, model in params.run_models.items():
        place = f"models.{name}." if name else ""
        out += [key_fault(f"{place}{key}", *said) for key, *said in _training(model)]
    whole = params.last
    checks = [_plan(whole), _steps(whole), _canvases(whole), _filters(whole, reviews), _uplift(whole), _named(whole)]
    return [*out, *_device(whole, cluster), *(key_fault(*each) for check in checks for each in check)]


def _training(params: Params) -> Iterator[Problem]:
    config, tile, text = params.train_denoiser, params.tile, params.train_encoders.text
    if "label" in config.conditions and not tile.labels.classes:
        problem = "it has label, and tile.labels.classes names none."
        yield "train_denoiser.conditions", problem, "take label out, or name the classes."
    if config.init == "scratch" and config.backbone == "unet":
        yield from _new_unet(params)
    if config.adapt == "controlnet" and "map" not in (registered("condition", n).shape for n in config.conditions):
        yield (
            "train_denoiser.adapt",
            "it is controlnet, and no condition is a map.",
            "name one, such as mask, or adapt by lora.",
        )
    if "text" in config.conditions and text.source == "train":
        if text.width % text.heads:
            problem = f"{text.heads} don't divide the width, {text.width}."
            yield "train_encoders.text.heads", problem, "name a divisor."
        if not tile.quoted:
            problem = "it quotes nothing, so that all captions are one, and a text tower has nothing to tell apart."
            yield "tile.caption", problem, "quote {composition} or {label}, or take text out of the conditions."
    for name in ("train_autoencoder", "train_denoiser"):
        if (place := getattr(params, name).resume_from) and not Path(place).is_dir():
            yield f"{name}.resume_from", f"there is no folder '{place}'.", "mend it, or leave it out."


def _new_unet(params: Params) -> Iterator[Problem]:
    config = params.train_denoiser
    latent_px, halvings = params.tile.tile_px // params.factor, len(config.channels) - 1
    if latent_px % 2**halvings:
        problem = f"{config.target.name} of a tile are {latent_px} px, which can't be halved {halvings} times."
        yield "train_denoiser.channels", problem, "name fewer, or cut tiles of another size."
    elif bad := config.windows_fault(latent_px, 2**halvings):
        yield "train_denoiser.windows_latent_px", bad, "name other sides."
    attending = min(config.channels[1:] or config.channels)
    if "text" in config.conditions and config.attention_head_dim > attending:
        problem = f"it is {config.attention_head_dim}, and a level that attends to the text has {attending} channels."
        yield "train_denoiser.attention_head_dim", problem, "state less, or more channels."


def _device(params: Params, cluster: Cluster) -> Iterator[Fault]:
    precisions = {
        "train_autoencoder.mixed_precision": params.train_autoencoder.mixed_precision,
        "train_denoiser.mixed_precision": params.train_denoiser.mixed_precision,
        "encode.precision": params.encode.precision,
        "sample.precision": params.sample.precision,
        "sample_slides.precision": params.sample_slides.precision,
    }
    half, int8 = ([key for key, stated in precisions.items() if stated == kind] for kind in ("fp16", "int8"))
    xformers = params.train_denoiser.attention == "xformers"
    if not half and not int8 and not xformers and cluster.device != "cuda":
        return
    import torch  # which takes seconds, and is asked of few studies alone

    if torch.cuda.is_available() and cluster.device != "cpu":
        for key in int8:
            yield key_fault(key, "int8 is for CPUs, and this study runs on a GPU.", "set it to bf16, fp16 or fp32.")
        return
    if cluster.device == "cuda":
        problem, remedy = "it is cuda, and torch sees no GPU.", "see `histoloom doctor`, or set it to auto."
        yield Fault("cluster.yaml, device", problem, remedy)
    on_cpu = "needs a GPU, and this study runs on a CPU."
    for key in half:
        yield key_fault(key, f"fp16 {on_cpu}", "set it to bf16 or fp32 (no, in training).")
    if xformers:
        yield key_fault("train_denoiser.attention", f"xformers {on_cpu}", "set it to auto.")


def _plan(params: Params) -> Iterator[Problem]:
    plan, labels = params.plan, params.tile.labels
    nothing_else = not plan.requests and not plan.evaluation_tiles
    if labels.source == "none" and plan.target != "none":
        problem = f"it is {plan.target}, and no tile has a label to count (tile.labels.source: none)."
        yield "plan.target", problem, "set it to none, and state plan.requests."
    elif plan.target == "none" and nothing_else:
        problem = "it is none, and nothing else is asked for: there is nothing to make."
        yield "plan.target", problem, "state plan.requests, plan.evaluation_tiles, or another target."
    elif plan.target in ("largest", "median") and len(labels.classes) == 1 and nothing_else:
        problem = f"it is {plan.target}, and there is one class, which no other outnumbers: there is nothing to make."
        yield "plan.target", problem, "state a number, plan.requests or plan.evaluation_tiles."
    for number, request in enumerate(plan.requests):
        for name in (n for n in request.change.leave_out if registered("condition", n).column is None):
            key, remedy = f"plan.requests[{number}].change.leave_out", "sample.guidance can leave it out of all"
            yield key, f"'{name}' can't be left out of single tiles.", f"{remedy} ({name}: 0)."


def _steps(params: Params) -> Iterator[Problem]:
    """A sampler takes its steps from those of training."""
    most, distil = params.train_denoiser.train_timesteps, params.train_denoiser.distil
    stated = {"sample.steps": params.sample.steps}
    stated |= {"sample_slides.steps": params.sample_slides.steps} if params.sample_slides.slides else {}
    stated |= {"train_denoiser.distil.teacher_steps": distil.teacher_steps} if distil else {}
    for key, steps in stated.items():
        if steps > most:
            problem = f"it is {steps}, and train_denoiser.train_timesteps is {most}."
            yield key, problem, f"state {most} or fewer."


def _canvases(params: Params) -> Iterator[Problem]:
    config, factor = params.sample_slides, params.factor
    window = config.window_latent_px or params.tile.tile_px // factor
    if not config.slides:
        return
    if max(config.halos(window)) > window // 4:
        problem = f"it is {max(config.halos(window))}, more than a quarter of the window ({window})."
        yield "sample_slides.halo_latent_px", problem, "state less, or leave it out."
    for slide in config.slides:
        if min(slide.width_px, slide.height_px) < window * factor:
            problem = f"it is {slide.width_px} x {slide.height_px} px, smaller than a window of {window * factor} px."
            remedy = "make it larger, or lower sample_slides.window_latent_px."
            yield f"sample_slides.slides, '{slide.name}'", problem, remedy


def _filters(params: Params, reviews: Path) -> Iterator[Problem]:
    use, names, text = params.filter.use, params.train_denoiser.conditions, params.train_encoders.text.source
    for name in ("mask", "text", "rna"):
        if name in use and name not in names:
            yield "filter.use", f"it names {name}, which is none of train_denoiser.conditions.", "take it out."
    both_towers = (
        text == "train"
        or (
            Path(packaged(text, "encoders/text", params.train_encoders.text.revision)) / "open_clip_config.json"
        ).is_file()
    )
    if "text" in use and "text" in names and not both_towers:
        problem = f"it names text, and '{text}' is no folder of an open_clip model with both towers."
        yield "filter.use", problem, "take text out, or set train_encoders.text.source to train or a package."
    if "mask" in use:
        told = params.train_filters.segmenter_config
        kind = registered("learner", told.name)
        if "mask" not in kind.tasks:
            problem = f"{told.name} learns {' and '.join(kind.tasks)}, and the mask filter looks at masks."
            yield "train_filters.segmenter", problem, "leave it out, or name one that learns masks."
        elif kind.reads(told):
            problem = f"{told.name} reads the study's own generator, and would believe what that makes."
            yield "train_filters.segmenter", problem, "leave it out, or name unet, unet-imagenet or diffusion."
        elif told.name == "command":
            problem = "a command is not kept, and the filter stage looks with what train_filters kept."
            yield "train_filters.segmenter", problem, "leave it out, or name unet, unet-imagenet or diffusion."
    if "review" in use and not reviews.is_file():
        problem = f"it names review, and there is no {reviews}."
        yield "filter.use", problem, "run histoloom review make and score, or take it out."


def _uplift(params: Params) -> Iterator[Problem]:
    config, labels = params.uplift, params.tile.labels
    if config.seeds and config.learner_name != DEFAULT_LEARNERS[config.task]:  # which needs no look: it loads torch
        tasks = registered("learner", config.learner_name).tasks
        if config.task not in tasks:
            problem = f"{config.learner_name} learns {' and '.join(tasks)}, and uplift.task is {config.task}."
            yield "uplift.learner", problem, "leave it out, or name one that learns that."
    if config.seeds and config.task == "mask" and params.tile.masks.source == "none":
        problem = "it is mask, and tile.masks.source is none."
        yield "uplift.task", problem, "set tile.masks, or uplift.task: label."
    if config.seeds and config.task == "label" and (len(labels.classes) < 2 or labels.source == "none"):
        problem = f"a classifier needs two classes of labels, and tile.labels has {len(labels.classes)}."
        yield "uplift.seeds", problem, "set it to 0, or name more classes."


def _named(params: Params) -> Iterator[Problem]:
    """Programs and folders that params name and that aren't there."""
    for key, command in (("tile.summarise", params.tile.summarise), ("uplift.command", params.uplift.command)):
        try:
            program = shlex.split(command)[0] if command else None
        except (ValueError, IndexError):
            yield key, f"'{command}' is no command line.", "close its quotes."
            continue
        if program and shutil.which(program) is None:
            yield key, f"there is no program '{program}'.", "install it, or mend the command."
    used = {"train_filters.features": params.train_filters.features, "evaluate.features": params.evaluate.features}
    if "image" in params.train_denoiser.encoded:
        used["train_encoders.image.source"] = params.train_encoders.image.source
    for key, name in used.items():
        if "/" not in name or name.startswith(("timm:", "hf-hub:", "transformers:")):
            continue
        if not Path(name).is_dir():
            yield key, f"there is no folder '{name}'.", "mend it, or name an extractor."
        elif key == "train_encoders.image.source" and not tile_encoder_of(name) and not _is_clip(Path(name)):
            problem = f"'{name}' holds neither an encoder of tiles nor a CLIP."
            yield key, problem, "name a package whose encoders/ has image/, such a folder, or an extractor."


def _is_clip(folder: Path) -> bool:
    """Whether a folder may be one of open_clip's or of transformers'."""
    return any((folder / name).is_file() for name in ("open_clip_config.json", "config.json"))
