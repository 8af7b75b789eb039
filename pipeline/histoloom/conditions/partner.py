"""The partner of a tile, as a map: the same place in another stain, on another scanner, or in the next section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from histoloom.conditions.condition import FitJob, Fitted, Source
from histoloom.conditions.picture import PictureCondition
from histoloom.config import Params
from histoloom.config.train_encoders import Degrade
from histoloom.data.manifest import Manifest
from histoloom.errors import Fault, Note


@dataclass(frozen=True)
class PartnerCondition(PictureCondition):
    """The picture of the slide that slides.csv states as the partner, as it is."""

    name = "partner"
    reads = ("partner",)

    @classmethod
    def check(cls, params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
        for entry in (slide for slide in manifest.slides if slide.partner is None):
            remedy = "name the registered slide, or take partner out of train_denoiser.conditions."
            yield Fault(
                params.tile.manifest or "slides.csv",
                "it is empty, and partner is a condition.",
                remedy,
                entry.row,
                "partner",
            )

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        return Fitted()

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(source.channels, source.px, Degrade())
