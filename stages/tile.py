"""Cut the manifest's slides into a tile store: splits first, then a task per slide, then the count of the bad ones."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("tile")
