"""Train classifiers or segmenters with and without synthetic tiles, and say whether these helped."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("uplift")
