"""histoloom: synthesis and augmentation of whole-slide images.

`load` gives a trained model, `open_store` a store of tiles, `TileDataset` a torch Dataset of one, `score` measures pictures against real
tiles. The command `histoloom` and DVC run whole studies.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from histoloom.errors import HistoloomError
from histoloom.register_pipeline import register_when_imported

if TYPE_CHECKING:
    from histoloom.api import Model, Samples, WovenPicture, load, load_learner
    from histoloom.data.store import TileStore, open_store
    from histoloom.data.tile_dataset import TileDataset
    from histoloom.quality.score import Score, score

__version__ = "0.1.0"
__all__ = [
    "HistoloomError", "Model", "Samples", "Score", "TileDataset", "TileStore", "WovenPicture", "__version__", "load", "load_learner", "open_store", "score",
]  # fmt: skip

# Before torch loads its OpenMP: threads that spin long while they wait make a training step many times slower as soon
# as another process wants a core; threads that don't spin at all make it half as fast on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Whatever a library asks of torch.load, only tensors come out: a pickle can run code.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)

register_when_imported()


_ELSEWHERE = {
    "HistoloomError": "errors", "Score": "quality.score", "TileDataset": "data.tile_dataset", "TileStore": "data.store", "open_store": "data.store",
    "score": "quality.score",
}  # fmt: skip
"""What the module `api` doesn't hold, so that torch or diffusers need not be loaded for it."""


def __getattr__(name: str) -> Any:
    """The doors wait until they are asked for: some load torch, which takes seconds."""
    if name in __all__:
        return getattr(import_module(f"histoloom.{_ELSEWHERE.get(name, 'api')}"), name)
    raise AttributeError(f"module 'histoloom' has no attribute {name!r}")
