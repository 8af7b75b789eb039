"""Where a trained model lies, and how large its tiles are, read without torch."""

from __future__ import annotations

from pathlib import Path

from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.package import autoencoder_facts, package_names, root
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError

_PARTS = ("autoencoder", "denoiser", "encoders")


def folder_of(source: str | Path) -> Path:
    """The folder that holds a model's parts: `autoencoder`, `denoiser` and `encoders`.

    Raises
    ------
    HistoloomError
        when there is no such model.
    """
    of_study = Study(Path(source)).models if (Path(source) / "params.yaml").is_file() else Path(source) / "models"
    places = (root() / str(source), Path(source), of_study)
    for place in places:
        if all((place / part).is_dir() for part in _PARTS):
            return place
    raise HistoloomError(
        f"There is no model at '{source}'. Name a packaged model ({', '.join(package_names())}), the folder of one, or a study whose models are "
        "trained (dvc repro train_denoiser)."
    )


def tile_px_of(folder: Path) -> int | None:
    """Side of a model's tiles; None where its files alone don't tell, as of a model of pixels or masks."""
    record = read_denoiser_record(folder / "denoiser")
    if record is None or record.training.target != "latents":
        return None
    return record.training.px * autoencoder_facts(folder / "autoencoder")["down_factor"]
