"""Benchmarks. Each states its results as ratios to the bare work in the same run: `python -m benchmarks.NAME`."""
