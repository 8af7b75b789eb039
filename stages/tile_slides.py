"""Cut woven slides into a second tile store, which is filtered and emitted as sampled tiles are."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("tile_slides")
