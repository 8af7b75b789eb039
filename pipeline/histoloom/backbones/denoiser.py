"""The folder of a trained denoiser: written, and loaded ready to run."""

from __future__ import annotations

from pathlib import Path

from histoloom.backbones.backbone import Backbone
from histoloom.backbones.few_steps import with_few_steps
from histoloom.config.denoiser_record import CONDITIONS_FILE, DenoiserRecord, read_denoiser_record
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.registry import registered


def save_denoiser(model: Backbone, record: DenoiserRecord, folder: Path) -> None:
    """Save a denoiser's weights, and its record beside them."""
    model.save(folder)
    write_json(folder / CONDITIONS_FILE, record.json)


def load_denoiser(
    folder: Path | str, device: str, attention: str = "auto", precision: str = "fp32", *, few_steps: bool = False
) -> tuple[Backbone, DenoiserRecord]:
    """Load what `train_denoiser` wrote, frozen.

    Parameters
    ----------
    few_steps : add the updates for few steps that lie beside it.

    Raises
    ------
    HistoloomError
        when there is none, or it has no updates.
    """
    record = read_denoiser_record(folder)
    if record is None:
        raise HistoloomError(f"'{folder}' holds no denoiser of histoloom's: it has no {CONDITIONS_FILE}.")
    model: Backbone = registered("backbone", record.training.backbone).load(folder, record)
    if few_steps:
        record = with_few_steps(model, record, folder)
    return model.freeze(device, attention=attention, precision=precision), record
