"""Get the demo's slide. A study of your own has no such stage: its slides are yours."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("fetch")
