"""Train the filters on real train tiles, and calibrate them on held-out ones."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("train_filters")
