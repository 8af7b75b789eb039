"""A request that is to be like other tiles is refused where no model is given their embedding."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from histoloom.config import Params

_TILES = {"train_denoiser": {"conditions": ["label", "image"]}}
_PIXELS = {"train_denoiser": {"target": "pixels", "conditions": ["label"]}}
_PRIOR = {
    "train_denoiser": {"target": {"name": "vectors", "condition": "image"}, "backbone": "mlp", "conditions": ["label"]}
}
_PLAIN = {"train_denoiser": {"conditions": ["label", "picture"]}}


@pytest.mark.parametrize(
    ("models", "chain", "own", "refused"),
    [
        ({"tiles": _TILES}, ["tiles"], [], False),
        ({"small": _PIXELS, "tiles": _TILES}, ["small", "tiles"], [], True),
        ({"codes": _PRIOR, "tiles": _TILES}, ["codes", "tiles"], [], True),
        ({"plain": _PLAIN, "tiles": _TILES}, ["tiles"], ["plain"], True),
        ({"plain": _PLAIN, "tiles": _TILES}, ["tiles"], ["tiles"], False),
    ],
    ids=["embedding", "picture made before", "embedding made before", "chain of its own without", "picture elsewhere"],
)
def test_like_needs_a_model_that_is_given_the_embedding_of_a_real_tile(models, chain, own, refused):
    request = {"name": "one", "tiles": 2, "like": {}, "chain": own}
    others = [{"name": "other", "tiles": 2, "chain": ["plain"]}] if "plain" in models else []
    params = {
        "tile": {"mpp": 1.0, "labels": {"classes": ["pink", "blue"]}},
        "models": models,
        "sample": {"chain": chain},
        "plan": {"target": "none", "requests": [request, *others]},
    }
    with pytest.raises(ValidationError, match="like gives the embedding") if refused else nullcontext():
        Params.model_validate(params)
