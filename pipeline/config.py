"""params.yaml and cluster.yaml, parsed once into frozen models; an unknown key is an error.

Every choice that changes a result is in params.yaml, one section per stage; how a machine runs the work is in
cluster.yaml, on which no stage depends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import HistoloomError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tissue(Section):
    """Tissue is where optical density exceeds Otsu's threshold, at a coarse scale."""

    mpp: float = Field(8.0, gt=0, description="scale of the tissue mask, µm/px")
    min_fraction: Fraction = 0.4
    min_od: float = Field(0.06, ge=0, description="floor of the threshold, so that blank glass is not split in two")
    min_area_um2: float = Field(2000.0, ge=0)


class Labels(Section):
    source: Literal["polygons", "raster", "spots", "slide", "none"] = "polygons"
    classes: tuple[str, ...] = Field(description="names of the tile labels")
    min_fraction: Fraction = Field(0.5, description="a tile takes the class that covers this much of it")
    spot_radius_um: float = Field(50.0, gt=0, description="a tile takes its nearest spot's label within this")
    unlabelled: Literal["drop", "keep"] = "drop"


class Masks(Section):
    source: Literal["polygons", "raster", "none"] = "none"
    classes: tuple[str, ...] = Field((), description="ids in `mask` are 1 + index here; 0 is background")


class Region(Section):
    """A grid of regions laid over a slide, with a gap kept free between them."""

    rows: Positive = 6
    cols: Positive = 3
    gap_um: float = Field(16.0, ge=0)


class Split(Section):
    group: Literal["patient", "slide", "region"] = "patient"
    fractions: dict[Literal["train", "val", "test"], Fraction] = {"train": 0.7, "val": 0.15, "test": 0.15}
    region: Region = Region()
    assign: dict[str, Literal["train", "val", "test"]] = Field({}, description="split_group to split, by name")

    @model_validator(mode="after")
    def _sums_to_one(self):
        if abs(sum(self.fractions.values()) - 1) > 1e-6 or self.fractions.get("train", 0) <= 0:
            raise ValueError("fractions of train, val and test must add up to 1, and train must have some")
        return self


class Tile(Section):
    manifest: str = "manifests/slides.csv"
    spots: str | None = None
    annotations_root: str = "manifests/annotations"
    slides_root: str = "data/slides"
    mpp: float = Field(gt=0, description="target scale, µm/px")
    upsample: bool = Field(False, description="allow a target finer than the slide's own scale")
    tile_px: Positive = 256
    stride_px: Positive = 256
    tissue: Tissue = Tissue()
    stain: Literal["none", "macenko", "reinhard"] = "none"
    labels: Labels
    masks: Masks = Masks()
    caption: str = Field(
        "H&E, {composition}", description="fields: {label}, {composition}, {caption} and manifest columns"
    )
    split: Split = Split()
    max_bad_slides: int = Field(0, ge=0)
    max_slide_gpx: float = Field(40.0, gt=0, description="larger slides are refused, in gigapixels")


class TrainEncoders(Section):
    """The text tower. `train` makes an open_clip CLIP from the manifest's tile-caption pairs."""

    text: str = Field("train", description="train, a folder, hf-hub:ORG/NAME (open_clip) or transformers:ORG/NAME")
    revision: str | None = None
    image_px: Positive = 64
    width: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    context_length: Positive = 24
    steps: Positive = 200
    batch_size: Positive = 64
    learning_rate: float = Field(5e-4, gt=0)


class TrainAutoencoder(Section):
    init: str = Field("scratch", description="scratch, or a folder or hub id of a diffusers autoencoder")
    revision: str | None = None
    arch: Literal["kl", "tiny"] = "tiny"
    latent_channels: Literal[4, 8, 16] = 4
    down_factor: Literal[2, 4, 8, 16] = 4
    channels: Positive = 32
    kl_weight: float = Field(1e-6, ge=0)
    detail_weight: float = Field(0.5, ge=0, description="asks for as much local detail as there was, against blur")
    steps: int = Field(500, ge=0, description="0 uses the loaded weights as they are")
    batch_size: Positive = 16
    learning_rate: float = Field(1e-3, gt=0)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Positive = 200
    resume_from: str | None = None


class Encode(Section):
    batch_size: Positive = 32
    flips: bool = Field(True, description="cache each tile's mirrored forms too; a mirrored latent is not one of them")


class LossWeight(Section):
    """`p2` is Choi et al. 2022, `min_snr` is Hang et al. 2023."""

    kind: Literal["none", "min_snr", "p2"] = "min_snr"
    gamma: float = Field(5.0, ge=0)
    k: float = Field(1.0, gt=0)


class TrainDenoiser(Section):
    init: str = Field("scratch", description="scratch, or a folder or hub id of a UNet2DConditionModel")
    revision: str | None = None
    conditions: tuple[Literal["label", "text"], ...] = ("label", "text")
    drop: dict[Literal["label", "text"], Fraction] = {"label": 0.1, "text": 0.1}
    channels: tuple[Positive, ...] = (48, 96)
    layers_per_block: Positive = 1
    attention_head_dim: Positive = 8
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"
    schedule: Literal["linear", "scaled_linear", "cosine", "quadratic"] = "cosine"
    train_timesteps: Positive = 1000
    loss_weight: LossWeight = LossWeight()
    ema_decay: Fraction = 0.999
    steps: Positive = 1000
    batch_size: Positive = 32
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: int = Field(50, ge=0)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Positive = 200
    resume_from: str | None = Field(None, description="a checkpoint folder to go on from; missing is an error")


class Plan(Section):
    classes: tuple[str, ...] = Field((), description="classes to synthesise; empty means every class in deficit")
    target: Literal["largest", "median"] | Positive = Field("largest", description="train tiles wanted per class")
    max_per_class: Positive = 256
    overdraw: float = Field(1.3, ge=1, description="made per tile wanted, because filters reject some")
    evaluation_tiles: int = Field(0, ge=0, description="made from held-out conditions; measured, never emitted")
    batch_size: Positive = 32
    batches_per_part: Positive = 2


class Sample(Section):
    scheduler: Literal["ddim", "euler", "dpmsolver++", "unipc"] = "dpmsolver++"
    steps: Positive = 20
    guidance: float = Field(2.0, ge=0, description="guidance scale; 1 is none, 0 ignores the conditions")


class TrainFilters(Section):
    false_rejection: dict[Literal["quality", "label", "near_copy"], Fraction] = Field(
        {},
        description="share of real held-out tiles that a filter may reject, which sets its threshold; 0.05 if unstated",
    )

    def share(self, name: str) -> float:
        return self.false_rejection.get(name, 0.05)


class Filter(Section):
    use: tuple[Literal["quality", "label", "near_copy"], ...] = ("quality", "label", "near_copy")


class Emit(Section):
    formats: tuple[Literal["imagefolder", "webdataset", "parquet"], ...] = ("imagefolder", "webdataset", "parquet")
    name: str = "histoloom-dataset"
    licence: str = "unknown"
    captions: bool = Field(False, description="captions may quote reports: they leave only when asked for")
    allow_unknown_ancestors: bool = False
    shard_tiles: Positive = 2000


class Evaluate(Section):
    features: Literal["efficientnet-lite0", "inception-v3"] = "efficientnet-lite0"
    weights: str | None = Field(None, description="file of the extractor's weights, where it is not the packaged one")
    max_tiles: Positive = 2000
    kid_subsets: Positive = 50
    neighbours: Positive = 3


class Report(Section):
    title: str = "histoloom report"
    tiles_shown: Positive = 32


class Params(Section):
    seed: int = 0
    tile: Tile
    train_encoders: TrainEncoders = TrainEncoders()
    train_autoencoder: TrainAutoencoder = TrainAutoencoder()
    encode: Encode = Encode()
    train_denoiser: TrainDenoiser = TrainDenoiser()
    plan: Plan = Plan()
    sample: Sample = Sample()
    train_filters: TrainFilters = TrainFilters()
    filter: Filter = Filter()
    emit: Emit = Emit()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @model_validator(mode="after")
    def _agree(self):
        if self.tile.stride_px > self.tile.tile_px * 16:
            raise ValueError("tile.stride_px is more than 16 tiles: most of the slide would be skipped")
        if self.tile.tile_px % self.train_autoencoder.down_factor:
            raise ValueError("tile.tile_px must be a multiple of train_autoencoder.down_factor")
        for where, classes in (
            ("tile.labels", self.tile.labels.classes),
            ("tile.masks", self.tile.masks.classes),
            ("plan", self.plan.classes),
        ):
            if repeated := [name for name in dict.fromkeys(classes) if classes.count(name) > 1]:
                raise ValueError(f"{where}.classes names {repeated[0]!r} twice")
        if "evaluate" in self.tile.labels.classes:
            raise ValueError("tile.labels.classes names 'evaluate', which the plan calls tiles made to be measured")
        unknown = set(self.plan.classes) - set(self.tile.labels.classes)
        if unknown:
            raise ValueError(f"plan.classes names {sorted(unknown)}, which tile.labels.classes does not")
        return self


class Cluster(Section):
    """How this machine runs the work. Changing it reruns nothing."""

    workers: int | Literal["auto"] = Field(
        "auto", description="processes; auto is one per core or GPU; 0 is in-process"
    )
    memory_limit: str = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    scheduler: str | None = Field(None, description="address of an existing dask scheduler, tcp://host:8786")
    training_threads: int | Literal["auto"] = "auto"
    retries: int = Field(2, ge=0, description="times a task whose worker died is tried again")


def _parse(path: Path, model: type[Section]):
    try:
        loaded = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise HistoloomError(
            f"{path} is missing. Run this in a study's folder, or make one: histoloom init DIR"
        ) from None
    except YAMLError as error:
        raise HistoloomError(f"{path} is not valid YAML: {error}") from error
    try:
        return model.model_validate(loaded)
    except ValidationError as error:
        faults = "\n".join(f"  - {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors())
        raise HistoloomError(f"{path} has {error.error_count()} fault(s):\n{faults}") from None


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml; all its faults are in one HistoloomError."""
    return _parse(Path(path), Params)


def load_cluster(path: Path | str = "cluster.yaml") -> Cluster:
    """Read cluster.yaml; a missing file means the defaults."""
    return _parse(Path(path), Cluster) if Path(path).exists() else Cluster()
