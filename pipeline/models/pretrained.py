"""Models that come with histoloom: a name in params stands for a folder of the package."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.package import packaged, root
from pipeline.data.commit import hash_tree

__all__ = ["contents", "packaged", "root"]


def contents(*sources: str | None) -> list[str | None]:
    """What files and folders hold, as hashes: beside their names in a stage's identity, for what lies under a name may change.

    None stands for what is no path: 'scratch', a hub's name.
    """
    return [hash_tree(Path(source)) if source and Path(source).exists() else None for source in sources]
