"""Masks of a whole slide by a denoiser of masks that is given the slide: a canvas for each sample, and their vote.

A canvas has one noise for the whole slide, so there is no seam between windows. Memory holds a band.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.backbones.denoiser import load_denoiser
from histoloom.data.pixel_box import PixelBox
from histoloom.data.study_folder import place_of
from histoloom.errors import HistoloomError
from histoloom.learners.kept import facts_of_study
from histoloom.learners.slide_files import Masks, PredictedSlide, masks_folder, write_masks
from histoloom.sampling.predicted_slide import Asked, PredictedCanvases, identity_of, weave_prediction
from histoloom.slides.open import slide_sha256
from histoloom.slides.slide import Slide
from histoloom.slides.tissue import detect_tissue

SAMPLES = 5
"""Unless a request of the study's plan that predicts has more."""
_BAND_PX = 256


def predict_by_canvas(
    slide: Slide, models: Path, out: Path, where: str, *, samples: int | None = None, seed: int = 0
) -> PredictedSlide:
    """Write what `predict_slide` writes. A pixel is as sure as the share of samples that agree.

    What was done before a break is taken up again, if slide and model are the same.

    Parameters
    ----------
    models : a study's or a package's, whose denoiser makes masks and is given the picture. where : the device.

    Raises
    ------
    HistoloomError
        when the denoiser is another, or `weave_prediction` refuses.
    """
    params = place_of(models).params
    _, record = load_denoiser(models / "denoiser", "cpu")
    if record.training.target != "masks" or "picture" not in [spec.name for spec in record.conditions]:
        raise HistoloomError(
            f"The denoiser in {models} makes {record.training.target}: masks are predicted by one with target: masks and conditions: [picture]."
        )
    asked_of = [request.samples for request in params.plan.requests if request.purpose == "predict"]
    asked = Asked({"picture": True}, samples=samples or max([*asked_of, SAMPLES]), seed=seed)
    parts = masks_folder(out).begin(slide.path, identity_of(models, asked, slide_sha256(slide.path), slide))
    found = weave_prediction(slide, models, asked, parts, where, "mask")
    masks = Masks.at(parts, found.size, found.downsample)
    masks.create()
    _vote(found, masks, len(params.tile.masks.classes))
    tissue = detect_tissue(slide, params.tile.tissue)
    return write_masks(out, masks, slide, facts_of_study("diffusion", params), models, tissue)


def _vote(found: PredictedCanvases, masks: Masks, classes: int) -> None:
    """Write what most samples say, and what share of them."""
    height, width = found.size
    for top in range(0, height, _BAND_PX):
        box = PixelBox(0, top, width, min(_BAND_PX, height - top))
        samples = np.stack([read(box)[..., 0] for read in found.readers])
        votes = np.stack([(samples == number).sum(0) for number in range(classes + 1)])
        made = found.made(box)[..., 0]
        ids = votes.argmax(0).astype(np.uint8) * made
        sure = np.rint(255 * votes.max(0) / len(samples)).astype(np.uint8) * made
        masks.ids.write(ids[..., None], left=0, top=top)
        masks.sure.write(sure[..., None], left=0, top=top)
