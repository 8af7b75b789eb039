"""Score every synthetic tile, and reject those that the filters distrust."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("filter")
