"""Train the denoiser on cached latents under their conditions."""

from histoloom.studies.stage_work import main

if __name__ == "__main__":
    main("train_denoiser")
