"""histoloom: synthesis and augmentation of whole-slide images.

`histoloom.load` gives a trained model, `histoloom.open_store` a store of tiles. The command `histoloom` and DVC run whole studies.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histoloom.api import load
    from histoloom.data.store import open_store

__version__ = "0.1.0"
__all__ = ["__version__", "load", "open_store"]

# Before torch loads its OpenMP: threads that spin long while they wait make a training step many times slower as soon
# as another process wants a core; threads that don't spin at all make it half as fast on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Whatever a library asks of torch.load, only tensors come out: a pickle can run code.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)


def __getattr__(name: str) -> Any:
    """The doors wait until they are asked for: `load` loads torch, which takes seconds, and `open_store` does without it."""
    if name == "load":
        from histoloom.api import load

        return load
    if name == "open_store":
        from histoloom.data.store import open_store

        return open_store
    raise AttributeError(f"module 'histoloom' has no attribute {name!r}")
