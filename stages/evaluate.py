"""Measure synthetic against real held-out tiles, each distance beside its floor."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("evaluate")
