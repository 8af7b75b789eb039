"""histoloom: whole-slide image synthesis and augmentation. See docs/architecture.md for the parts."""

import os

__version__ = "0.1.0"

# Before torch loads its OpenMP: threads that spin while they wait make a training step ten times slower as soon as
# another process wants a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
