"""What the folder of a trained denoiser tells of itself, read without torch: its conditions, its training, its sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from histoloom.config.package import check_weights, read_json, told
from histoloom.config.pipeline import check_pipeline, in_pipeline, pipeline_process

CONDITIONS_FILE = "conditions.json"
"""The file beside a denoiser's weights that holds its `DenoiserRecord`; a model from elsewhere has none."""
CLASSIFIER = "classifier"
"""The folder in a denoiser's that holds a classifier of noised data."""
Prediction = Literal["epsilon", "v_prediction", "sample"]
Schedule = Literal["linear", "scaled_linear", "cosine", "quadratic"]
Shape = Literal["sequence", "vector", "map"]
MapInput = Literal["concat", "spade", "controlnet"]


@dataclass(frozen=True)
class ConditionSpec:
    """What the denoiser must know of a condition.

    shape : which of the three forms it takes (see `Conditions`).
    size : channels of the sequence's tokens, of the vector, or of the map.
    drop : probability of the null in training.
    channels : what each channel stands for, where channels have names.
    """

    name: str
    shape: Shape
    size: int
    drop: float = 0.0
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class DenoiserTraining:
    """How a denoiser was trained, as far as whoever samples it or trains it further must know.

    prediction, schedule, train_timesteps : of the forward process.
    map_input : how maps enter the network; None of one that reads none.
    shape : (channels, ...) of the data that it was trained on.
    distilled : the number of steps that it was distilled to; None where it wasn't.
    guidance_inside : whether a distilled denoiser learnt its teacher's guidance, and is to be sampled without.
    target, backbone : what it diffuses, and its network, as params name them.
    betas : the first and the last of the schedule; None where they are the schedule's own.
    """

    prediction: Prediction
    schedule: Schedule
    train_timesteps: int
    map_input: MapInput | None
    shape: tuple[int, ...]
    distilled: int | None = None
    guidance_inside: bool = True
    target: str = "latents"
    backbone: str = "unet"
    betas: tuple[float, float] | None = None

    @property
    def px(self) -> int:
        """Side of the data."""
        return self.shape[-1]


@dataclass(frozen=True)
class DenoiserRecord:
    """What is kept beside a denoiser's weights: its conditions in their order, and its training."""

    conditions: tuple[ConditionSpec, ...]
    training: DenoiserTraining

    @property
    def channels(self) -> dict[str, tuple[str, ...]]:
        """Condition to what its channels stand for."""
        return {spec.name: spec.channels for spec in self.conditions}

    @property
    def json(self) -> dict[str, Any]:
        """What `CONDITIONS_FILE` holds."""
        return {"conditions": [asdict(spec) for spec in self.conditions], "training": asdict(self.training)}


def read_denoiser_record(folder: Path | str) -> DenoiserRecord | None:
    """The record in a denoiser's folder, or what its pipeline tells; None of another model from elsewhere. Keys that nobody knows are
    left out.

    Raises
    ------
    HistoloomError
        when the file is damaged.
    """
    path = Path(folder) / CONDITIONS_FILE
    if not path.is_file():
        return _pipeline_record(Path(folder)) if in_pipeline(Path(folder)) else None
    written = read_json(path)
    conditions = []
    for found in told(written, "conditions", path):
        name, shape, size, channels = (told(found, key, path) for key in ("name", "shape", "size", "channels"))
        conditions.append(ConditionSpec(name, shape, size, found.get("drop", 0.0), tuple(channels)))
    training = told(written, "training", path)
    if "shape" not in training:  # as packages of the first version state it
        px = told(training, "latent_px", path)
        training = training | {"shape": (told(training, "latent_channels", path), px, px)}
    facts = {name: told(training, name, path) for name in ("prediction", "schedule", "train_timesteps", "map_input")}
    optional = ("distilled", "guidance_inside", "target", "backbone")
    facts |= {name: training[name] for name in optional if name in training}
    facts |= {name: tuple(training[name]) for name in ("shape", "betas") if training.get(name)}
    if not any(spec.shape == "map" for spec in conditions):
        facts["map_input"] = None  # a network that reads no map can take one in any way
    return DenoiserRecord(tuple(conditions), DenoiserTraining(**facts))


def _pipeline_record(unet: Path) -> DenoiserRecord:
    """What the pipeline tells that a UNet lies in: text is its condition."""
    check_pipeline(unet)
    path = unet / "config.json"
    config = read_json(path)
    px = config.get("sample_size") or 64
    height, width = (px, px) if isinstance(px, int) else px
    shape = (told(config, "out_channels", path), height, width)
    text = ConditionSpec("text", "sequence", told(config, "cross_attention_dim", path))
    return DenoiserRecord((text,), DenoiserTraining(map_input=None, shape=shape, **pipeline_process(unet)))


@dataclass(frozen=True)
class DenoiserFolder:
    """What all files of a denoiser's folder tell.

    latent_channels : of the latents that it makes.
    sizes : channels, layers_per_block and attention_head_dim, as params name them.
    record : None of a model from elsewhere.
    few_steps : the number of steps that its updates for few steps lead to; None where it has none.
    """

    latent_channels: int
    sizes: dict[str, Any]
    record: DenoiserRecord | None = None
    few_steps: int | None = None


def read_denoiser_folder(folder: Path) -> DenoiserFolder:
    """Read a denoiser's folder.

    Raises
    ------
    HistoloomError
        when it is damaged.
    """
    check_pipeline(folder)
    path = folder / "config.json"
    config = read_json(path)
    check_weights(folder, "denoiser")
    sizes: dict[str, Any] = {"channels": tuple(told(config, "block_out_channels", path))}
    for name in ("layers_per_block", "attention_head_dim"):  # each level may have its own, which params can't state
        sizes[name] = value if isinstance(value := config.get(name), int) else None
    few = folder / "few_steps" / "few_steps.json"
    steps = told(read_json(few), "steps", few) if few.is_file() else None
    return DenoiserFolder(told(config, "out_channels", path), sizes, read_denoiser_record(folder), steps)
