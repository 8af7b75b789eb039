"""Train, fine-tune or load the autoencoder, and measure its latents."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("train_autoencoder")
