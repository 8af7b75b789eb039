"""histoloom: whole-slide image synthesis and augmentation. See docs/architecture.md for the parts."""

import os

__version__ = "0.1.0"

# Before torch loads its OpenMP: threads that spin long while they wait make a training step many times slower as soon
# as another process wants a core; threads that don't spin at all make it half as fast on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Whatever a library asks of torch.load, only tensors come out: a pickle can run code.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
