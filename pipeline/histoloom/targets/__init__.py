"""What is diffused: an autoencoder's latents, or pixels."""

import os

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # as in backbones
