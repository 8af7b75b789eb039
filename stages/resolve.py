"""Write every param with its default, and what the files hold that params name."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("resolve")
