"""Decide what to synthesise and why: a row a tile, under conditions of the train split alone."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("plan")
