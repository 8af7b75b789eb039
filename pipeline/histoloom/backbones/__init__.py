"""The denoising network: made, loaded and saved by one door; its precision, CUDA graphs and low-rank updates."""

import os

# diffusers warns of every configuration key that it wrote itself and no longer reads.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
