"""The sections from `sample` to `report`: making tiles, judging them, handing them on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Distinct, ExtractorName, Fraction, Guided, Positive, Section


class Sample(Guided):
    scheduler: Literal["ddim", "euler", "dpmsolver++", "unipc"] = "dpmsolver++"
    steps: Positive = 20

    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="what the networks compute in; bf16 is fp32 where a CPU hasn't it"
    )


FilterName = Literal["quality", "distance", "label", "disagreement", "mask", "text", "rna", "near_copy"]
_REJECTED = {"quality": 0.01, "distance": 0.01, "near_copy": 0.001}


class TrainFilters(Section):
    false_rejection: dict[FilterName, Fraction] = Field(
        {},
        description="share of real held-out tiles that a filter may reject, which sets its threshold; unstated, 0.01 for "
        "quality and distance, 0.001 for near_copy, 0.05 for the others",
    )
    features: ExtractorName = Field(
        "efficientnet-lite0",
        description="what distance, label, disagreement and rna look through, of what evaluate.features names",
    )
    segmenter_steps: Positive = Field(
        400,
        description="of training what the mask filter looks with, and up to five more to set its threshold, one for each fifth of "
        "the split groups",
    )

    def share(self, name: str) -> float:
        return self.false_rejection.get(name, _REJECTED.get(name, 0.05))


class Filter(Section):
    use: Annotated[tuple[FilterName | Literal["review"], ...], Distinct] = Field(
        ("quality", "distance", "label", "disagreement", "near_copy"), description="which filters, in this order"
    )
    min_yield: Fraction = Field(
        0.02,
        description="least share of a class's tiles that must pass; fewer is an error, so that no class vanishes quietly",
    )


class Emit(Section):
    formats: Annotated[tuple[Literal["imagefolder", "webdataset", "parquet"], ...], Distinct] = Field(
        ("imagefolder", "webdataset", "parquet"), min_length=1
    )
    name: str = Field("histoloom-dataset", pattern=r"^\S.*$", max_length=200)
    licence: str = Field("unknown", pattern=r"^\S.*$")
    captions: bool = Field(False, description="captions may quote reports: they leave only when asked for")
    allow_unknown_ancestors: bool = False
    shard_tiles: Positive = 2000


class Evaluate(Section):
    features: ExtractorName = Field(
        "efficientnet-lite0",
        description="efficientnet-lite0 (packaged), inception-v3, timm:NAME, transformers:ORG/NAME (PLIP: vinid/plip), "
        "hf-hub:ORG/NAME (open_clip), or a folder of either CLIP",
    )
    weights: str | None = Field(
        None, description="file of the extractor's weights, of the first three, where they aren't its own"
    )
    max_tiles: Positive = 2000
    kid_subsets: Positive = 50
    neighbours: Positive = 3

    @model_validator(mode="after")
    def _weights_are_of_what_takes_them(self):
        if self.weights and not self.features.startswith(("efficientnet-lite0", "inception-v3", "timm:")):
            raise ValueError(f"evaluate.weights is not read: '{self.features}' has its own. Leave weights out")
        return self


class Report(Section):
    title: str = "histoloom report"
    tiles_shown: Positive = 32
