"""A learner of masks in a folder of its own, with what whoever looks at a slide with it must know."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from histoloom.config import Params, load_params
from histoloom.config.package import read_json
from histoloom.data.commit import write_json
from histoloom.data.lineage import FILE as LINEAGE
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.errors import HistoloomError
from histoloom.learners.certainty import Certainty
from histoloom.learners.learner import Learner, learner_of
from histoloom.sampling.diffusion_model import lineage_of_models

_FACTS = "learner.json"


@dataclass(frozen=True)
class KeptFacts:
    """name : of the learner. classes : of its masks, without the background. mpp : µm/px of the tiles that it learnt. px : their side.
    tissue : how tissue is told from glass, as `tile.tissue` states it; empty for the defaults.
    stain : how tiles were normalised, as `tile.stain` states it.
    certainty : how often it is right of what it says that it is sure of; None where nobody looked.
    """

    name: str
    classes: tuple[str, ...]
    mpp: float
    px: int
    tissue: dict[str, Any] = field(default_factory=dict)
    stain: str = "none"
    certainty: Certainty | None = None

    def right(self, sure: np.ndarray) -> np.ndarray:
        """How often pixels (...) are right of which the learner is so sure, from 0 to 1."""
        return sure if self.certainty is None else self.certainty(sure)


@dataclass(frozen=True)
class Kept:
    """A learner of masks that was fitted, and what it learnt."""

    learner: Learner
    facts: KeptFacts


def facts_of_study(name: str, params: Params) -> KeptFacts:
    """What a learner of this name learns in a study."""
    tile = params.tile
    tissue = tile.tissue.model_dump(mode="json")
    return KeptFacts(name, tuple(tile.masks.classes), tile.mpp, tile.tile_px, tissue, tile.stain)


def keep(kept: Kept, folder: Path) -> None:
    """Write what `load_kept` reads."""
    kept.learner.save(folder)
    write_json(folder / _FACTS, asdict(kept.facts))


def load_kept(folder: Path, device: str = "cpu") -> Kept:
    """A learner that was kept, by itself or among a study's filters.

    Raises
    ------
    HistoloomError
        when the folder holds none, or what it holds is damaged.
    """
    folder = _place(folder)
    try:
        if (folder / _FACTS).is_file():
            _params_of(folder)
            facts = read_json(folder / _FACTS)
            facts["classes"] = tuple(facts["classes"])
            if (stated := facts.get("certainty")) is not None:
                facts["certainty"] = Certainty(tuple(stated["said"]), tuple(stated["right"]))
            return Kept(learner_of(facts["name"], "mask").load(folder, device), KeptFacts(**facts))
    except HistoloomError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise HistoloomError(
            f"The learner in {folder} can't be loaded on {device}: {error!r}. Make it anew, or name another folder or device."
        ) from error
    raise HistoloomError(
        f"{folder} holds no learner of masks, and no denoiser. Name models/filters of a study whose filter.use names mask, or the models of a study."
    )


def lineage_of_learner(folder: Path) -> Lineage:
    """What a learner learnt from that `load_kept` reads; unknown where no record lies beside it."""
    place = _place(folder)
    if not (place / _FACTS).is_file() and (place / "denoiser").is_dir():
        return lineage_of_models(place)
    return read_lineage(next((of for of in (place, place.parent) if (of / LINEAGE).is_file()), place))


def _place(folder: Path) -> Path:
    """Where a learner lies: among filters, in the folder of the filter `mask`."""
    among = folder / "mask"
    return among if (among / _FACTS).is_file() else folder


def _params_of(folder: Path) -> Params | None:
    """The params of the study or the package that a folder of models is of; None where there are none. The pieces that they name from outside
    are known then."""
    places = (folder, *list(folder.parents)[:3])
    stated = next((place / "params.yaml" for place in places if (place / "params.yaml").is_file()), None)
    return None if stated is None else load_params(stated)
