"""Weave whole slides, each as one canvas of blocks on the cluster."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("sample_slides")
