"""How good the masks are that requests predicted of held-out tiles, and whether samples that agree are right."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd

from histoloom.config import Params
from histoloom.data.rows import spread
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.learners.certainty import Checked, checked, fit_certainty
from histoloom.progress import console
from histoloom.registry import registered
from histoloom.sampling.reduce.masks import AGREEMENT
from histoloom.uplift.tasks import counted, mask_task

_AT_ONCE = 64
_OF_MASKS = {"mask", "instance", "edge"}
"""Arrays of a tile that show its mask."""
_PIXELS = 4_000_000
"""Of which it is told how sure they are."""


class MaskPredictions(Checked, total=False):
    """Of one request: its masks of held-out tiles against the masks that are stated of them.

    split : test, or val where there is no test. tiles, groups : how many. dice : mean over split groups; dice_of_worst_group, dice_of_class.
    Absent where no tile shows a class.
    What is checked is the share of samples that agree on a pixel. certainty : what corrects it, fitted on val tiles: `said` and `right` of
    `Certainty`. These need samples that vote; `certainty` and `calibration_error`, val and test tiles too.
    """

    split: str
    tiles: int
    groups: int
    dice: float
    dice_of_worst_group: float
    dice_of_class: dict[str, float]
    certainty: dict[str, tuple[float, ...]]


def told_the_mask(params: Params) -> frozenset[str]:
    """Names of the requests of which a model is given a condition that is made of the tile's own mask."""
    links = params.chains()
    return frozenset(
        request.name
        for request in params.plan.requests
        if _is_told([*links[request.chain or params.sample.chain].values()])
    )


def _is_told(links: list[Params]) -> bool:
    """Whether a model of a chain is given the tile's own mask. What a model before it made is not the tile's own; guidance 0 leaves a condition out."""
    made: set[str] = set()
    for link in links:
        for name in link.train_denoiser.conditions:
            if _OF_MASKS & {*registered("condition", name).reads} - made and link.sample.scale(name):
                return True
        made |= {*registered("target", link.train_denoiser.target.name).makes}
    return False


def measured_predictions(
    real: TileStore, predicted: TileStore, classes: tuple[str, ...], most: int, told: Collection[str] = ()
) -> dict[str, MaskPredictions]:
    """Request to what is measured of its masks. Left out are requests that predict no masks, or none of a held-out tile whose mask is known.

    Parameters
    ----------
    most : tiles of each split that are read, evenly spread.
    told : requests whose model was given the tile's mask, which are left out too.
    """
    every, truth = predicted.rows(), real.rows().set_index("tile_id", drop=False)
    held_out = "test" if (truth["split"] == "test").any() else "val"
    found = {}
    for request, rows in every.groupby("request", sort=False):
        sources = truth.loc[rows["condition_ref"]]
        rows, sources = (each[sources["masked"].to_numpy(bool)] for each in (rows, sources))
        if rows.empty or not _predicts_masks(real, predicted, rows, sources):
            continue
        begun = rows["input_ref"].notna().any()  # the data that it begins from are the tile's own mask, or another's
        alike = "like_ref" in rows and rows["like_ref"].notna().any()
        if begun or alike or request in told:
            why = "they were begun from masks" if begun else "its model was given the tiles' own masks"
            why = "its model was given the embeddings of other tiles" if alike else why
            console.print(f"evaluate: masks of the request '{request}' are not measured: {why}", markup=False)
            continue
        of = sources["split"].to_numpy()
        val, test = (_spread(rows[of == split], most) for split in ("val", held_out))
        if len(test):
            measured = _measured(real, predicted, truth, val if held_out == "test" else val.head(0), test, classes)
            found[str(request)] = MaskPredictions(split=held_out, **measured)
    return found


def _spread(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """All rows of at most so many tiles: a tile has several where each sample is kept."""
    tiles = rows.drop_duplicates("condition_ref")
    return rows[rows["condition_ref"].isin(spread(tiles, most)["condition_ref"])]


def _predicts_masks(real: TileStore, predicted: TileStore, rows: pd.DataFrame, sources: pd.DataFrame) -> bool:
    """Whether a request's masks are results, and have the size of the real ones. A mask beside a picture was given."""
    part = rows["part"].iloc[0]
    has = {name: predicted.has(name, part) for name in ("mask", "image", "vector")}
    if not has["mask"] or has["image"] or has["vector"]:
        return False
    ours, theirs = predicted.read(rows.head(1), "mask"), real.read(sources.head(1), "mask")
    return ours.shape == theirs.shape


def _measured(
    real: TileStore, predicted: TileStore, truth: pd.DataFrame, val: pd.DataFrame, test: pd.DataFrame, classes: tuple[str, ...]
) -> MaskPredictions:  # fmt: skip
    counts, pixels, step = [], [], _step(real, truth, test)
    for ours, theirs, sure in _batches(real, predicted, truth, test):
        counts.append(counted(ours, theirs, len(classes)))
        pixels += [] if sure is None else [_sure_and_right(ours, theirs, sure, step)]
    task = mask_task(truth.loc[test["condition_ref"]], classes)
    found: MaskPredictions = {"tiles": test["condition_ref"].nunique(), "groups": len({*task.groups})}
    of_tiles = np.concatenate(counts)
    if task.evidence(of_tiles)[..., 2].any():
        measures = task.measures(of_tiles)
        found["dice"], found["dice_of_worst_group"] = measures["dice"], measures["dice_of_worst_group"]
        found["dice_of_class"] = measures["dice_of_class"]
    if not pixels:
        return found
    sure, right = (np.concatenate(each) for each in zip(*pixels))
    step = _step(real, truth, val)
    of_val = [_sure_and_right(*each, step) for each in _batches(real, predicted, truth, val)]
    certainty = fit_certainty(*(np.concatenate(each) for each in zip(*of_val))) if of_val else None
    if certainty is not None:
        found["certainty"] = asdict(certainty)
    return {**found, **checked(sure, right, None if certainty is None else certainty(sure))}


def _step(real: TileStore, truth: pd.DataFrame, rows: pd.DataFrame) -> int:
    """Of so many pixels one is looked at, so that they fit into memory."""
    if rows.empty:
        return 1
    side = real.read(truth.loc[rows["condition_ref"].head(1)], "mask")
    return max(1, side.size * len(rows) // _PIXELS)


def _batches(
    real: TileStore, predicted: TileStore, truth: pd.DataFrame, rows: pd.DataFrame
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Masks (b, h, w) that are predicted and stated, and how far samples agree, (b, h, w), where the request tells."""
    for start in range(0, len(rows), _AT_ONCE):
        some = rows.iloc[start : start + _AT_ONCE]
        tells = predicted.has(AGREEMENT, some["part"].iloc[0])
        sure = predicted.read(some, AGREEMENT) if tells else None
        yield predicted.read(some, "mask"), real.read(truth.loc[some["condition_ref"]], "mask"), sure


def _sure_and_right(
    ours: np.ndarray, theirs: np.ndarray, sure: np.ndarray | None, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of every `step`-th known pixel: how sure it is, and whether it is right."""
    assert sure is not None, "all parts of a request have the same arrays"
    known = theirs != UNKNOWN
    return sure[known][::step], (ours[known] == theirs[known])[::step]
