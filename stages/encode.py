"""Turn train tiles into latents and conditions into arrays, part by part."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("encode")
