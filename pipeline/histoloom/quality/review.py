"""A blinded review: the tiles that a person sees, and what their verdicts say of realism and of single tiles."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from histoloom.data.commit import write_json
from histoloom.data.rows import held_out_rows, spread
from histoloom.data.study_folder import Study
from histoloom.errors import Fault, HistoloomError, ManifestFaults

KEY = "key.parquet"
SCORE = "score.json"
_VERDICTS = ("real", "synthetic")
_USABLE = ("yes", "no")
NONE = "none"
"""What a reader answers who finds that a tile shows none of the classes."""


class Proportion(TypedDict, total=False):
    """A fraction of n tiles, and its 95 % interval (Wilson 1927); of none, n alone."""

    fraction: float
    interval: list[float]
    n: int


def draw_review(study: Study, count: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Accepted synthetic and held-out real tiles, as many of the one as of the other in each label, mixed.

    Further real tiles are mixed in where a label has fewer than another, so that a reader who is asked for the class can't guess it.

    Returns
    -------
    Images (n, h, w, 3) uint8, and the key: `number` from 1, `tile_id`, `source`, `label`, `compared` (whether it is one of as many
    synthetic as real tiles), `image_sha256`.

    Raises
    ------
    HistoloomError
        when no label has tiles of both kinds.
    """
    if not study.verdicts.is_dir():
        raise HistoloomError("There are no verdicts yet: run dvc repro filter first.")
    real, pool = study.real(), []
    pool.append((real, held_out_rows(real.rows()).assign(source="real")))
    for store in study.synthetic_stores():
        rows = store.rows()
        pool.append((store, rows[rows["accepted"] & (rows["purpose"] == "augment")].assign(source="synthetic")))
    rows = pd.concat([part.assign(store=number) for number, (_, part) in enumerate(pool)], ignore_index=True)
    rows["label"] = rows["label"].fillna("")
    both = (
        rows.groupby("label")["source"]
        .value_counts()
        .unstack(fill_value=0)
        .reindex(columns=["real", "synthetic"], fill_value=0)
    )
    pairs = both.min(axis=1)
    if not pairs.sum():
        raise HistoloomError(
            "No label has both held-out real tiles and accepted synthetic ones, so nothing could be compared. Change tile.split "
            "or plan.classes."
        )
    wanted = (pairs * min(1.0, count / 2 / pairs.sum())).round().clip(lower=1).astype(int).where(pairs > 0, 0)
    chosen = []
    for (label, source), part in rows.groupby(["label", "source"]):
        pair = spread(part, wanted[label])
        chosen.append(pair.assign(compared=True))
        if source == "real" and label:
            others = part.drop(pair.index)
            chosen.append(spread(others, max(wanted.max() - len(pair), 0)).assign(compared=False))
    key = pd.concat(chosen)
    key = key.iloc[np.random.default_rng(seed).permutation(len(key))].reset_index(drop=True)
    images = np.stack([pool[row.store][0].read(key.iloc[[place]])[0] for place, row in enumerate(key.itertuples())])
    key = key.assign(number=np.arange(1, len(key) + 1), image_sha256=[hash_image(image) for image in images])
    return images, key[["number", "tile_id", "source", "label", "compared", "image_sha256"]]


def hash_image(image: np.ndarray) -> str:
    """What a verdict holds for: the picture itself, wherever it came from and whatever it is called."""
    return sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def score_review(folder: Path, verdicts: Path, reviewed: Path) -> dict[str, Proportion]:
    """Score a reader's verdicts against the key, and keep which synthetic tiles they found unusable for the filter `review`.

    Returns
    -------
    Fractions: of synthetic and of real tiles taken for real, of verdicts that were right, and of synthetic tiles found
    unusable. A half right means that the reader could not tell. Where there are several classes: of synthetic and of real tiles
    whose class was named rightly, and the same of each class.

    Raises
    ------
    ManifestFaults
        with every fault of the verdicts.
    """
    key = pd.read_parquet(folder / KEY).set_index("number")
    given = _read(verdicts, key)
    joined = given.join(key, on="number")
    paired = joined[joined["compared"]]
    called_real = paired["verdict"] == "real"
    score = {
        **{f"{s}_taken_for_real": _fraction(called_real[paired["source"] == s]) for s in ("synthetic", "real")},
        "right": _fraction(paired["verdict"] == paired["source"]),
        "synthetic_unusable": _fraction(joined["usable"][joined["source"] == "synthetic"] == "no"),
        **(_named_rightly(joined) if "class" in joined else {}),
    }
    write_json(folder / SCORE, score)
    synthetic = joined.loc[joined["source"] == "synthetic", ["tile_id", "image_sha256", "usable"]]
    before = pd.read_csv(reviewed, dtype=str) if reviewed.is_file() else synthetic.head(0)
    both = pd.concat([before, synthetic]).drop_duplicates("image_sha256", keep="last")
    reviewed.parent.mkdir(parents=True, exist_ok=True)
    both.to_csv(reviewed, index=False)
    return score


def classes_asked(key: pd.DataFrame) -> list[str]:
    """The classes that a reader is asked to tell apart; none where a review shows one alone."""
    names = sorted({*key["label"]} - {""})
    return names if len(names) > 1 else []


def _named_rightly(joined: pd.DataFrame) -> dict[str, Proportion]:
    asked = joined[(joined["class"] != "") & (joined["label"] != "")]
    right, found = asked["class"] == asked["label"], {}
    for source in ("synthetic", "real"):
        found[f"{source}_named_rightly"] = _fraction(right[asked["source"] == source])
        for label, of_label in right[asked["source"] == source].groupby(asked["label"]):
            found[f"{source}_named_rightly_of_{label}"] = _fraction(of_label)
    return found


def _fraction(hits: pd.Series) -> Proportion:
    if hits.empty:
        return {"n": 0}
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"fraction": float(hits.mean()), "interval": [float(found.low), float(found.high)], "n": len(hits)}


def _read(path: Path, key: pd.DataFrame) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str).fillna("")
    except (OSError, ValueError) as error:
        raise HistoloomError(f"The verdicts could not be read from {path}: {error}") from error
    classes = classes_asked(key)
    if missing := {"number", "verdict", "usable", *(["class"] if classes else [])} - set(table.columns):
        raise HistoloomError(f"{path} has no column {', '.join(sorted(missing))}; save it with the page's own button.")
    faults, numbers = [], table["number"].map(lambda text: int(text) if text.isdigit() else -1)
    for row, (number, verdict, usable) in enumerate(zip(numbers, table["verdict"], table["usable"]), 2):
        if number not in key.index:
            faults.append(
                Fault(
                    str(path),
                    f"there is no tile {number} in this review.",
                    "take the key's folder that it belongs to.",
                    row,
                    "number",
                )
            )
        for column, value, known in (("verdict", verdict, _VERDICTS), ("usable", usable, _USABLE)):
            if value not in known:
                faults.append(Fault(str(path), f"'{value}' is none of {', '.join(known)}.", "mend it.", row, column))
    for row, name in enumerate(table["class"] if classes else (), 2):
        if name not in (*classes, NONE, ""):
            faults.append(
                Fault(str(path), f"'{name}' is none of {', '.join((*classes, NONE))}.", "mend it.", row, "class")
            )
    for number in numbers[numbers.duplicated()].unique():
        faults.append(Fault(str(path), f"tile {number} has two verdicts.", "keep one.", None, "number"))
    if faults:
        raise ManifestFaults(faults)
    return table.assign(number=numbers)
