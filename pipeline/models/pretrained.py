"""Models that come with histoloom: a name in params stands for a folder of the package."""

from __future__ import annotations

from pathlib import Path


def root() -> Path:
    """Where packaged models lie: beside this one in an installed package, else at the repository's top."""
    here = Path(__file__).parents[1] / "pretrained"
    return here if here.is_dir() else Path(__file__).parents[2] / "pretrained"


def packaged(source: str, part: str) -> str:
    """The folder of a packaged model's part (autoencoder, denoiser, encoders/text, encoders/rna); any other source as it
    is."""
    folder = root() / source / part
    return str(folder) if source and folder.is_dir() else source
