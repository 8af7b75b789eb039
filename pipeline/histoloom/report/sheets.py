"""The report's contact sheets: tiles of each kind, with what a reader should know of them below."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypedDict

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.data.requests import AS_IS, CHANGED
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.report.pictures import contact_sheet, data_uri, mask_picture


class Sheet(TypedDict):
    """uri : the picture, as data."""

    title: str
    text: str
    uri: str


def _as_grey(maps: np.ndarray) -> np.ndarray:
    """Maps of numbers (n, h, w) or (n, h, w, c), channels averaged, as grey (n, h, w, 3) uint8; white is the most."""
    maps = np.abs(maps if maps.ndim == 3 else maps.mean(-1))
    grey = 255 * maps / max(float(maps.max()), 1e-12)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, -1)


_COLUMNS = 8
_MADE = ("tile_id", "label", "request", "purpose", "accepted", "reject_reasons")
_OF_COPIES = ("near_copy_score", "nearest_train_tile")
"""What sheets say of a synthetic tile, and what the near-copy filter found of it."""
_OF_RESULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "image": np.asarray, "mask": mask_picture, "deviation": _as_grey, "agreement": _as_grey, "residual": _as_grey,
}  # fmt: skip
"""Array of a result to how it is drawn; others are no pictures."""
_GIVEN_MASK = ("image", "vector")
"""A mask beside one of these was given as a condition, and is no result."""


def sheets_of(real: TileStore, synthetic: TileStore, shown: int) -> list[Sheet]:
    """Real tiles, and tiles that were sampled one by one: as many as are shown in each sheet."""
    rows = real.rows(("split", "label"))
    every = synthetic.rows(_MADE, optional=_OF_COPIES)
    augment = every[every["purpose"] == "augment"]
    accepted, rejected = augment[augment["accepted"]], augment[~augment["accepted"]]
    same = rows[(rows["split"] == "train") & rows["label"].isin(augment["label"].unique())]
    evaluate = every[every["purpose"] == "evaluate"]
    sheets = [
        _sheet(
            "Real train tiles of the augmented classes", "For comparison with what follows.", real, spread(same, shown)
        ),
        _sheet(
            "Synthetic, accepted",
            "Evenly spread over all that passed the filters, not chosen by eye.",
            synthetic,
            spread(accepted, shown),
        ),
        _sheet(
            "Synthetic, rejected", "Below each, what rejected it.", synthetic, _with_reasons(spread(rejected, shown))
        ),
        _nearest(real, synthetic, _most_alike(accepted, shown)),
        _sheet(
            "Synthetic for evaluation",
            "Given held-out conditions, unfiltered; measured, never emitted.",
            synthetic,
            spread(evaluate, shown),
        ),
        _masked(synthetic, spread(augment, shown // 2)),
        _pairs(synthetic, augment, shown // 2),
    ]
    return [sheet for sheet in sheets if sheet]


def woven_sheets(store: TileStore, shown: int) -> list[Sheet]:
    """Tiles cut from woven slides: those that passed, and those that did not."""
    rows = store.rows(("label", "accepted", "reject_reasons"))
    accepted, rejected = spread(rows[rows["accepted"]], shown), _with_reasons(spread(rows[~rows["accepted"]], shown))
    text = "Evenly spread over all tiles of woven slides that {} the filters."
    sheets = [
        _sheet("Cut from woven slides, accepted", text.format("passed"), store, accepted),
        _sheet("Cut from woven slides, rejected", text.format("failed"), store, rejected),
    ]
    return [sheet for sheet in sheets if sheet]


def predicted_sheets(real: TileStore, store: TileStore, shown: int) -> list[Sheet]:
    """A sheet for each request of results on real tiles: the tile that was given, then each picture of the result."""
    every, sheets = real.rows(("tile_id",)).set_index("tile_id"), []
    for request, rows in store.rows(("request", "input_ref", "condition_ref")).groupby("request", sort=False):
        chosen = spread(rows, shown // 2)
        results = _results(store, chosen)
        if results:
            given = real.read(every.loc[chosen["input_ref"].fillna(chosen["condition_ref"])])
            sheets.append(_in_rows(f"Predicted: {request}", {"given": given} | results))
    return sheets


def _results(store: TileStore, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Pictures (n, h, w, 3) of what a request made, by array; all its parts have the same arrays."""
    has = partial(store.has, part=rows["part"].iloc[0])
    given = {"mask"} if any(map(has, _GIVEN_MASK)) else set()
    return {
        name: drawn(store.read(rows, name)) for name, drawn in _OF_RESULTS.items() if has(name) and name not in given
    }


def _in_rows(title: str, pictures: dict[str, np.ndarray]) -> Sheet:
    """Pictures of several kinds (n, h, w, 3) each, those of a tile beside one another and as large as the first kind's."""
    size = next(iter(pictures.values())).shape[1:3]
    alike = [_resized(of, size) for of in pictures.values()]
    joined = np.stack(alike, 1).reshape(-1, *size, 3)
    captions, columns = [*pictures] * len(alike[0]), max(1, _COLUMNS // len(alike)) * len(alike)
    text = "Results on real tiles, evenly spread, never emitted. In maps of numbers, white is the sheet's largest number and black is 0."
    return {"title": title, "text": text, "uri": data_uri(contact_sheet(joined, columns=columns, captions=captions))}


def _resized(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures (n, h, w, 3) at (height, width): the first model of a chain may make smaller ones than its last."""
    if pictures.shape[1:3] == size:
        return pictures
    return np.stack([np.asarray(Image.fromarray(p).resize(size[::-1], Image.Resampling.NEAREST)) for p in pictures])


def _with_reasons(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(label=["; ".join(reasons) for reasons in rows["reject_reasons"]])


def _most_alike(rows: pd.DataFrame, shown: int) -> pd.DataFrame:
    """Those that lie nearest to a train tile, where that was looked at."""
    if not {*_OF_COPIES} <= {*rows}:
        return rows.head(0)
    rows = rows.dropna(subset=[*_OF_COPIES])
    return spread(rows.sort_values("near_copy_score", ascending=False).head(shown), shown // 2)


def _sheet(title: str, text: str, store: TileStore, rows: pd.DataFrame) -> Sheet | None:
    """Tiles with their labels below."""
    if rows.empty:
        return None
    captions = rows["label"].fillna("unlabelled").astype(str).tolist()
    return {"title": title, "text": text, "uri": data_uri(contact_sheet(store.read(rows), captions=captions))}


def _beside(first: np.ndarray, second: np.ndarray, captions: list[str]) -> str:
    """Pictures (n, h, w, 3) in pairs, each with its line of text."""
    pairs = np.stack([first, second], 1)
    return data_uri(contact_sheet(pairs.reshape(-1, *pairs.shape[2:]), captions=captions))


def _masked(synthetic: TileStore, rows: pd.DataFrame) -> Sheet | None:
    if rows.empty or not synthetic.has("mask"):
        return None
    edges = synthetic.read(rows, "edge") if synthetic.has("edge") else None
    captions = [text for request in rows["request"] for text in ("mask given", request)]
    uri = _beside(mask_picture(synthetic.read(rows, "mask"), edges), synthetic.read(rows), captions)
    text = "Unfiltered, evenly spread over the synthetic tiles to augment; a colour for each class."
    return {"title": "Masks, and the tiles under them", "text": text, "uri": uri}


def _pairs(synthetic: TileStore, rows: pd.DataFrame, shown: int) -> Sheet | None:
    as_is, changed = (rows[rows["tile_id"].str.endswith(end)] for end in (AS_IS, CHANGED))
    as_is, changed = as_is.sort_values("tile_id").head(shown), changed.sort_values("tile_id").head(shown)
    if as_is.empty:
        return None
    captions = [text for request in as_is["request"] for text in (f"{request}: as is", "changed")]
    uri = _beside(synthetic.read(as_is), synthetic.read(changed), captions)
    text = "Two tiles of one seed, unfiltered: under the conditions of a real tile, and with one of them changed."
    return {"title": "Counterfactual pairs", "text": text, "uri": uri}


def _nearest(real: TileStore, synthetic: TileStore, chosen: pd.DataFrame) -> Sheet | None:
    if chosen.empty:
        return None
    matches = real.rows(("tile_id",)).set_index("tile_id").loc[chosen["nearest_train_tile"]]
    captions = [text for score in chosen["near_copy_score"] for text in (f"synthetic  r={score:.2f}", "nearest real")]
    uri = _beside(synthetic.read(chosen), real.read(matches.reset_index()), captions)
    text = "The most alike of those accepted; r is the correlation after turning, mirroring and shifting."
    return {"title": "Accepted, beside the nearest train tile", "text": text, "uri": uri}
