"""Models that come with histoloom: a name in params stands for a folder of the package."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.commit import hash_tree


def root() -> Path:
    """Where packaged models lie: beside this one in an installed package, else at the repository's top."""
    here = Path(__file__).parents[1] / "pretrained"
    return here if here.is_dir() else Path(__file__).parents[2] / "pretrained"


def packaged(source: str, part: str) -> str:
    """The folder of a part (autoencoder, denoiser, encoders/text, encoders/rna) of a packaged model, which `source` names
    or whose folder it is; any other source as it is."""
    folders = [root() / source / part, Path(source) / part] if source else []
    return str(next((folder for folder in folders if folder.is_dir()), source))


def contents(*sources: str | None) -> list[str | None]:
    """What files and folders hold, as hashes: beside their names in a stage's identity, for what lies under a name may change.

    None stands for what is no path: 'scratch', a hub's name.
    """
    return [hash_tree(Path(source)) if source and Path(source).exists() else None for source in sources]
