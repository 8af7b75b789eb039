"""Schedules, loss weights, noise, guidance and the tile sampler."""
