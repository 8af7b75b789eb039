"""Write the augmented dataset behind the leak gate, with its card: real train with accepted synthetic; val and test real only."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("emit")
