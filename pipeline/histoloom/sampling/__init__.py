"""Trained models loaded, and the tiles of a plan sampled."""
