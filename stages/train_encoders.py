"""Make what turns conditions into numbers: a CLIP for text, a VAE for RNA, a vocabulary of genotypes."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("train_encoders")
