"""Write the report: one self-contained page, and one for each woven slide."""

from histoloom.studies.work import main

if __name__ == "__main__":
    main("report")
