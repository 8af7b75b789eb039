"""Seeds that belong to items."""

from __future__ import annotations

import hashlib


def item_seed(run_seed: int, item: str) -> int:
    """The seed of an item: the first 64 bits of sha256 over (run seed, item id)."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{item}".encode()).digest()[:8], "little")
