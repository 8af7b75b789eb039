"""What is diffused: an autoencoder's latents."""

import os

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # as in backbones
