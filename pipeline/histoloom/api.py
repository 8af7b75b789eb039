"""The Python door: models, learners, stores and scores, each in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.few_steps import read_few_steps
from histoloom.cluster import device as device_of
from histoloom.conditions.encode import ConditionSet
from histoloom.config import Cluster
from histoloom.config.base import Precision
from histoloom.config.package import scales_of
from histoloom.data.model_folder import folder_of
from histoloom.data.study_folder import Study
from histoloom.model import Model
from histoloom.sampling.diffusion_model import DiffusionModel, load_target
from histoloom.sampling.one_slide import WovenPicture
from histoloom.sampling.tiles import Samples, TileSampler
from histoloom.targets.latents import Latents
from histoloom.targets.target import Target

if TYPE_CHECKING:
    from histoloom.learners.learner import Learner
    from histoloom.targets.autoencoder import Autoencoder

__all__ = [
    "Model", "Samples", "WovenPicture", "few_steps_of", "folder_of", "load", "load_learner", "model_of",
]  # fmt: skip


def load(source: str | Path, device: str = "auto", *, few_steps: bool = False, precision: Precision = "fp32") -> Model:
    """Load a trained model.

    Parameters
    ----------
    source : the name of a packaged model, such as 'histoloom-base'; the folder of a package; or a study's folder.
    device : 'cpu', 'cuda', or 'auto': a GPU where there is one.
    few_steps : take the package's updates for few steps, with which a tile takes a fraction of the time.
    precision : of the networks: fp32, bf16, fp16 (a GPU's) or int8 (a CPU's, for large layers of the denoiser). A CPU without bf16 or int8
        computes in fp32. `predict_slide` uses that of the model's params.

    Raises
    ------
    HistoloomError
        when there is no such model, it is damaged, it has no updates for few steps, or the device can't compute in this precision.
    """
    where = device_of(Cluster.model_validate({"device": device}))
    return model_of(folder_of(source), where, few_steps=few_steps, precision=precision)


def model_of(
    folder: Path,
    device: str,
    parts: Mapping[str, torch.nn.Module] | None = None,
    *,
    few_steps: bool = False,
    precision: Precision = "fp32",
) -> Model:
    """The model in a folder, on a device.

    Parameters
    ----------
    parts : networks that stand in place of the folder's own: `denoiser`, a UNet of diffusers, and `autoencoder`.
    few_steps, precision : as of `load`. A denoiser in `parts` has the updates already, and is itself made ready for this precision.
    """
    parts = parts or {}
    network, record = load_denoiser(folder / "denoiser", device, precision=precision, few_steps=few_steps)
    if "denoiser" in parts:
        network.network = parts["denoiser"]
        network.freeze(device, precision=precision)
    if "autoencoder" in parts:
        target: Target = Latents.of(
            cast("Autoencoder", parts["autoencoder"]), folder / "autoencoder", device, precision
        )
    else:
        target = load_target(folder, record, device, precision)
    model = DiffusionModel(target, network, ConditionSet(()), record, device, folder)
    scales = scales_of(str(folder)) or _scales_of_study(folder)
    return Model(folder, TileSampler(model, scales), device, few_steps, precision)


def load_learner(source: str | Path, device: str = "cpu") -> Learner:
    """Load a learner of masks that a study kept, such as 'my-study/models/filters'.

    `.predict(tiles)` gives class ids (n, h, w) uint8 of tiles (n, h, w, 3) uint8, and `.sure_masks(tiles)` also how sure they are.
    For a whole slide there is the command `histoloom predict`.

    Raises
    ------
    HistoloomError
        when there is none, or it is damaged.
    """
    from histoloom.learners.kept import load_kept

    return load_kept(Path(source), device).learner


def few_steps_of(source: str | Path) -> int | None:
    """The steps to which a model's updates for few steps lead; None where it has none."""
    facts = read_few_steps(folder_of(source) / "denoiser")
    return None if facts is None else facts["steps"]


def _scales_of_study(models: Path) -> tuple[float, ...]:
    """The scales of the study that holds a folder of models, µm/px, tile.mpp first."""
    for root_ in (models.parent, models.parent.parent):
        if (root_ / "params.yaml").is_file():
            tile = Study(root_).params.tile
            return tile.mpp, *tile.more_mpp
    return ()
