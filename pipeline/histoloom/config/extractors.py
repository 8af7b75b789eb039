"""Feature extractors: which there are, what is known of each, and who may look through which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from histoloom.config.package import package_names, root

NATURAL = "natural images"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class KnownExtractor:
    """What its publisher states of an extractor, or of a family of them.

    name : of one; of a family, what its names begin with.
    trained_on : natural images (ImageNet's), or tissue, and at how many µm/px.
    trained_px : side of the pictures that it was trained on; None where that differs or is not stated.
    licence : of its weights.
    gated : whether a hub asks for terms to be accepted first; None where that differs within a family.
    """

    name: str
    trained_on: str
    trained_px: int | None
    licence: str
    gated: bool | None


KNOWN_EXTRACTORS = (
    KnownExtractor("efficientnet-lite0", NATURAL, 224, "Apache-2.0", False),
    KnownExtractor("efficientnet-lite2", NATURAL, 260, "Apache-2.0", False),
    KnownExtractor("inception-v3", NATURAL, 299, NOT_STATED, False),
    KnownExtractor("transformers:vinid/plip", "tissue, µm/px not stated", 224, NOT_STATED, False),
    KnownExtractor("timm:", NOT_STATED, None, NOT_STATED, None),
    KnownExtractor("transformers:", NOT_STATED, None, NOT_STATED, None),
    KnownExtractor("hf-hub:", NOT_STATED, None, NOT_STATED, None),
)
OF_NO_PATIENT = tuple(known.name for known in KNOWN_EXTRACTORS if known.trained_on == NATURAL)
"""Extractors that learnt natural images alone. Of others nobody here knows whose tissue they saw."""
JUDGE = "efficientnet-lite2"
"""It judges what was made, so nothing that is made or chosen may look through it."""


def is_extractor(source: str) -> bool:
    """Whether a source of the condition `image` is a network from elsewhere that is known by its name: no folder, and not `train`."""
    families = tuple(known.name for known in KNOWN_EXTRACTORS if known.name.endswith(":"))
    return source in OF_NO_PATIENT or source.startswith(families)


def _check_extractor(name: str, others: str = "") -> str:
    if not is_extractor(name) and "/" not in name:
        raise ValueError(
            f"'{name}' is no feature extractor: {others}efficientnet-lite0, efficientnet-lite2 (evaluate.features alone), "
            "inception-v3, timm:NAME, transformers:ORG/NAME, hf-hub:ORG/NAME (open_clip), or a folder of either CLIP, "
            "written with a slash"
        )
    return name


def _refuse_the_judge(name: str) -> str:
    if name == JUDGE or (name.startswith("timm:") and "tf_efficientnet_lite2" in name):
        raise ValueError(
            f"'{name}' judges what was made (evaluate.features), and its figures would mean nothing of what was made or "
            "chosen by looking through it: use efficientnet-lite0, or another network"
        )
    return name


JudgeName = Annotated[str, AfterValidator(_check_extractor)]
"""What `histoloom.conditions.feature_extractors.load_extractor` takes."""
ExtractorName = Annotated[JudgeName, AfterValidator(_refuse_the_judge)]
"""Of those, what conditions and filters may look through."""
TRAIN = "train"
"""The source of an encoder of tiles that is trained in the study."""


def _check_tower(name: str) -> str:
    models = [model for model in package_names() if (root() / model / "encoders/image").is_dir()]
    if name in (TRAIN, *models):
        return name
    return _refuse_the_judge(_check_extractor(name, ", ".join((TRAIN, *models, ""))))


TowerName = Annotated[str, AfterValidator(_check_tower)]
"""What the condition `image` may look through: an extractor, `train`, or a packaged model."""
