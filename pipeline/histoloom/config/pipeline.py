"""Folders of Stable Diffusion's form, as diffusers writes them: what one tells of its denoiser.

The folder holds `model_index.json`, and a folder each for the UNet, the autoencoder, the text tower, its tokenizer and the
scheduler. Text is the UNet's only condition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histoloom.config.package import is_pipeline, read_json, told
from histoloom.errors import HistoloomError

_SCHEDULES = ("linear", "scaled_linear")
_OTHER_INPUTS = {
    "addition_embed_type": "it reads more than a caption, as the UNet of SDXL does",
    "encoder_hid_dim_type": "it reads other embeddings than a text tower's",
    "class_embed_type": "it reads a class of its own",
    "num_class_embeds": "it reads a class of its own",
    "time_cond_proj_dim": "it reads a guidance scale, as consistency models do",
}
"""Settings of a UNet that must be unset, and what a set one means."""


def in_pipeline(folder: Path) -> bool:
    """Whether a part's folder lies in a pipeline's."""
    return is_pipeline(folder.parent)


def check_pipeline(folder: Path) -> None:
    """Refuse a pipeline whose denoiser is no UNet of latents and text; `folder` is what was found of its denoiser.

    Raises
    ------
    HistoloomError
        when it has no UNet, or one with other inputs.
    """
    if is_pipeline(folder):
        has = sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file())
        raise HistoloomError(f"'{folder}' is a pipeline without a folder unet; it has {', '.join(has) or 'no model'}.")
    if not in_pipeline(folder):
        return
    path = folder / "config.json"
    config = read_json(path)
    if (name := config.get("_class_name")) != "UNet2DConditionModel":
        raise HistoloomError(f"'{folder}' is a {name}; UNet2DConditionModel is supported.")
    for key in (key for key in _OTHER_INPUTS if config.get(key) is not None):
        raise HistoloomError(f"'{folder}' can't be used: {_OTHER_INPUTS[key]} ({key} is {config[key]!r}).")
    inputs, outputs = told(config, "in_channels", path), told(config, "out_channels", path)
    if inputs != outputs:
        raise HistoloomError(
            f"'{folder}' reads {inputs} channels and makes {outputs}: it is a UNet for inpainting, depth or enlarging. "
            "One that reads noisy latents alone is supported."
        )
    if not isinstance(told(config, "cross_attention_dim", path), int):
        raise HistoloomError(
            f"'{folder}' reads text of several widths; one that reads a single text tower is supported."
        )


def pipeline_process(unet: Path) -> dict[str, Any]:
    """`prediction`, `schedule`, `betas` and `train_timesteps` of the pipeline that a UNet's folder lies in.

    Raises
    ------
    HistoloomError
        when its noise is of another kind.
    """
    path = unet.parent / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    name, schedule = config.get("_class_name", "the scheduler"), config.get("beta_schedule")
    if config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
        own = "betas of its own, or betas moved to an end without signal"
        raise HistoloomError(f"{path}: {name} has {own}. Neither is supported.")
    if schedule not in _SCHEDULES:
        known = " and ".join(_SCHEDULES)
        raise HistoloomError(f"{path}: the beta_schedule of {name} is {schedule!r}; {known} are supported.")
    prediction = config.get("prediction_type") or "epsilon"  # which the first pipelines don't state
    if prediction not in ("epsilon", "v_prediction", "sample"):
        known = "epsilon, v_prediction and sample"
        raise HistoloomError(f"{path}: prediction_type is {prediction!r}; {known} are supported.")
    return {
        "prediction": prediction,
        "schedule": schedule,
        "betas": (float(told(config, "beta_start", path)), float(told(config, "beta_end", path))),
        "train_timesteps": told(config, "num_train_timesteps", path),
    }
