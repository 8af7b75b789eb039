"""Filters: each scores tiles, and rejects those beyond a threshold calibrated on real held-out tiles."""
