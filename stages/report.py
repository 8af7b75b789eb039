"""Write the report: one self-contained page, and one for each woven slide."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("report")
