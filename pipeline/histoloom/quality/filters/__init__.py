"""Filters: each scores tiles, and rejects those beyond a threshold that is calibrated on real held-out tiles."""
