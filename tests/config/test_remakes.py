"""A region is made anew only by models that make regions, and blended only by those that make pictures."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from histoloom.config import Params

DISC = {"centre_um": 5.0}


@pytest.mark.parametrize(
    ("target", "remake", "refused"),
    [
        ("pixels", DISC | {"blend_um": 1.0}, None),
        ("masks", DISC, None),
        ("masks", DISC | {"blend_um": 1.0}, "blends pictures"),
        ("instances", DISC | {"blend_um": 1.0}, "blends pictures"),
        ({"name": "vectors", "condition": "label"}, DISC, "makes a region of a tile anew"),
    ],
)
def test_a_request_asks_for_what_its_model_makes(target, remake, refused):
    backbone = {"backbone": "mlp"} if isinstance(target, dict) else {}
    params = {
        "tile": {
            "mpp": 1.0,
            "labels": {"classes": ["pink", "blue"]},
            "masks": {"source": "raster", "classes": ["nucleus"]},
        },
        "train_denoiser": {"target": target, "conditions": [], **backbone},
        "plan": {
            "target": "none",
            "evaluation_tiles": 0,
            "requests": [{"name": "one", "tiles": 2, "purpose": "predict", "remake": remake}],
        },
    }
    with pytest.raises(ValidationError, match=refused) if refused else nullcontext():
        Params.model_validate(params)
