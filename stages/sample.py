"""Sample the plan's parts as tasks on the cluster."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("sample")
