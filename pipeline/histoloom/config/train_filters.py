"""The section `train_filters`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from histoloom.config.base import Fraction, Positive, Section
from histoloom.config.extractors import ExtractorName
from histoloom.config.file_keys import Names
from histoloom.config.learners import DEFAULT_LEARNERS, LearnerConfig, PlainLearner

FilterName = Literal["quality", "distance", "label", "mask", "text", "rna", "anomaly", "near_copy"]
_REJECTED = {"quality": 0.01, "distance": 0.01, "anomaly": 0.01, "near_copy": 0.001}


class TrainFilters(Section):
    false_rejection: dict[FilterName, Fraction] = Field({})
    """fraction of real held-out tiles that a filter may reject, which sets its threshold; unstated, 0.01 for quality,
    distance and anomaly, 0.001 for near_copy, 0.05 for the others"""
    features: Annotated[ExtractorName, Names.EXTRACTOR] = "efficientnet-lite0"
    """network whose features the filters distance, label, realism and rna use: one of evaluate.features, except efficientnet-lite2"""
    segmenter: LearnerConfig | None = None
    """learner of masks that the mask filter uses: a name, or its keys, as uplift.learner; unstated, unet"""
    segmenter_steps: Positive = 400
    """training steps of the mask filter's segmenter, and of each of up to five more that set its threshold"""

    @property
    def segmenter_config(self) -> LearnerConfig:
        """The mask filter's learner, where it is unstated too."""
        return self.segmenter or PlainLearner(name=DEFAULT_LEARNERS["mask"])

    def false_rejection_of(self, name: str) -> float:
        """The fraction of real held-out tiles that a filter may reject."""
        stated = {str(filter_): fraction for filter_, fraction in self.false_rejection.items()}
        return stated.get(name, _REJECTED.get(name, 0.05))
