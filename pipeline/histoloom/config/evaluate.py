"""The section `evaluate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from histoloom.config.base import Positive, Section
from histoloom.config.extractors import JUDGE, JudgeName
from histoloom.config.file_keys import Names


class Evaluate(Section):
    features: Annotated[JudgeName, Names.EXTRACTOR] = JUDGE
    """efficientnet-lite2 or efficientnet-lite0 (packaged), inception-v3, timm:NAME, transformers:ORG/NAME (PLIP:
    vinid/plip), hf-hub:ORG/NAME (open_clip), or a folder of either CLIP"""
    weights: Annotated[str | None, Names.FILE] = None
    """file of weights for efficientnet-lite0, efficientnet-lite2, inception-v3 or timm:NAME, in place of its own"""
    max_tiles: Positive = 2000
    """most tiles of each set that are looked at, evenly spread"""
    kid_subsets: Positive = 50
    """subsets over which KID is averaged"""
    neighbours: Positive = 3
    """nearest neighbours that precision, recall, density and coverage look at"""

    @model_validator(mode="after")
    def _weights_are_of_what_takes_them(self):
        if self.weights and not self.features.startswith(("efficientnet-lite", "inception-v3", "timm:")):
            raise ValueError(f"evaluate.weights is not read: '{self.features}' has its own. Leave weights out")
        return self
