"""A learner of masks in a folder of its own, with what whoever looks at a slide with it must know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from histoloom.backbones.denoiser import load_denoiser
from histoloom.config import load_params
from histoloom.config.learners import DiffusionLearner
from histoloom.config.package import read_json
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.learners.diffusion import segmenter_of
from histoloom.learners.learner import Learner, learner_of
from histoloom.targets.masks import Masks

_FACTS = "learner.json"


@dataclass(frozen=True)
class KeptFacts:
    """name : of the learner. classes : of its masks, without the background. mpp : µm/px of the tiles that it learnt. px : their side."""

    name: str
    classes: tuple[str, ...]
    mpp: float
    px: int


@dataclass(frozen=True)
class Kept:
    """A learner of masks that was fitted, and what it learnt."""

    learner: Learner
    facts: KeptFacts


def keep(kept: Kept, folder: Path) -> None:
    """Write what `load_kept` reads."""
    kept.learner.save(folder)
    write_json(folder / _FACTS, asdict(kept.facts))


def load_kept(folder: Path, device: str = "cpu") -> Kept:
    """A learner that was kept, or the denoiser of masks in a study's `models` or in a package.

    Raises
    ------
    HistoloomError
        when the folder holds neither.
    """
    if (folder / _FACTS).is_file():
        facts = read_json(folder / _FACTS)
        facts["classes"] = tuple(facts["classes"])
        return Kept(learner_of(facts["name"], "mask").load(folder, device), KeptFacts(**facts))
    if (folder / "denoiser").is_dir():
        return _of_denoiser(folder, device)
    raise HistoloomError(
        f"{folder} holds no learner of masks. Name models/filters of a study whose filter.use names mask, or the models of a study "
        "whose train_denoiser has target: masks and conditions: [picture]."
    )


def _of_denoiser(folder: Path, device: str) -> Kept:
    network, record = load_denoiser(folder / "denoiser", device)
    if record.training.target != "masks" or tuple(spec.name for spec in record.conditions) != ("picture",):
        raise HistoloomError(
            f"The denoiser in {folder} makes {record.training.target}: masks are predicted by one with target: masks and conditions: [picture]."
        )
    stated = next(
        (place / "params.yaml" for place in (folder, folder.parent) if (place / "params.yaml").is_file()), None
    )
    if stated is None:
        raise HistoloomError(
            f"There is no params.yaml in {folder} or beside it, which states its scale and its classes."
        )
    params = load_params(stated)
    request = next(iter(params.plan.requests), None)
    samples, reduce = (request.samples, request.reduce.name) if request else (5, "staple")
    told = DiffusionLearner.of(
        params.train_denoiser, params.sample, samples, reduce if reduce in ("vote", "staple") else "staple"
    )
    target = Masks.load(folder / "autoencoder", device)
    if target.factor != 1:
        raise HistoloomError(
            f"The denoiser in {folder} makes masks at factor {target.factor}: slides are predicted at factor 1."
        )
    learner = segmenter_of(network, record, target, told, device, folder)
    facts = KeptFacts(
        "diffusion", tuple(params.tile.masks.classes), params.tile.mpp, record.training.px * target.factor
    )
    return Kept(learner, facts)
