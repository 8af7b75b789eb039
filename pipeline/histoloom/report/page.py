"""One self-contained page from what the stages measured and made."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

import histoloom
from histoloom.config import Params
from histoloom.data.requests import AS_IS, CHANGED
from histoloom.data.rows import spread
from histoloom.data.store import TileStore, stores_in
from histoloom.data.study_folder import Study
from histoloom.report.pictures import contact_sheet, curve_picture, data_uri, mask_picture
from histoloom.report.summary import in_short, severity, uplift_table
from histoloom.report.viewer import write_viewer
from histoloom.slides.woven import FACTS, THUMBNAIL

_MOST_THUMBNAILS = 12
_ONE_OF_SEVERAL_PX = 480


def write_report(study: Study, output: Path) -> None:
    """Write `output`, an HTML page that asks nothing of the network; strings of the user are escaped."""
    params, reports, params_file = study.params, study.reports(), study.root / "params.yaml"
    real = study.real()
    made = TileStore(study.synthetic, rows_from=study.verdicts)
    woven = stores_in([study.woven_tiles], rows_from=study.verdicts)
    measured = {
        name: _read(reports / name / "metrics.json")
        for name in (
            "tile",
            "train_encoders",
            "train_autoencoder",
            "train_denoiser",
            "plan",
            "sample",
            "sample_slides",
            "train_filters",
            "filter",
            "evaluate",
            "emit",
            "uplift",
        )
    }
    funnel = measured["filter"].get("augment", {"made": 0, "accepted": 0, "by_class": {}, "rejected_for": {}})
    environment = Environment(loader=PackageLoader("histoloom.report", "."), autoescape=True, undefined=StrictUndefined)
    with (reports / "tile" / "slides.csv").open(encoding="utf-8") as stream:
        slides = list(csv.DictReader(stream))
    steps = [("planned", measured["plan"]["augment"]), ("made", funnel["made"]), ("accepted", funnel["accepted"])]
    page = environment.get_template("page.html").render(
        title=params.report.title,
        version=histoloom.__version__,
        real=measured["tile"],
        funnel=funnel,
        funnel_steps=steps,
        funnel_most=max(count for _, count in steps),
        classes=_classes(measured, funnel),
        requests=_requests([made, *woven]),
        of_slides=measured["filter"].get("woven", {}),
        rejected_for=list(funnel["rejected_for"].items()),
        slides=slides,
        thumbnails=_thumbnails(real),
        woven=_woven(study.woven, measured, output.parent),
        more_thumbnails=max(0, len(real.parts) - _MOST_THUMBNAILS),
        sheets=_sheets(params, real, made)
        + [s for store in woven for s in _woven_sheets(store, params.report.tiles_shown)],
        comparison=_comparison(measured["evaluate"]),
        extractor=measured["evaluate"].get("extractor"),
        reference=measured["evaluate"].get("reference"),
        seed=params.seed,
        extractor_also=measured["evaluate"].get("extractor_also", []),
        by_class=measured["evaluate"].get("by_class", {}),
        uplift=measured["uplift"],
        uplift_table=uplift_table(measured["uplift"]),
        in_short=in_short(measured),
        labels_kept=params.tile.labels.unlabelled == "keep",
        curves=_curves(reports),
        calibration=_picture(reports / "train_filters" / "calibration.png"),
        severity=severity(measured["train_filters"]),
        reconstruction=_picture(reports / "train_autoencoder" / "reconstruction.png"),
        measured=_measured(measured),
        provenance=_provenance(measured, made),
        params_text=params_file.read_text(encoding="utf-8") if params_file.exists() else "",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _picture(path: Path) -> str | None:
    return data_uri(path) if path.exists() else None


def _classes(measured: dict, funnel: dict) -> list[dict]:
    train = measured["tile"]["tiles_by_split"].get("train", {})
    planned = measured["plan"]["classes"]
    return [
        {
            "label": label,
            "train": train.get(label, 0),
            "wanted": planned.get(label, {}).get("wanted", "-"),
            "made": funnel["by_class"].get(label, {}).get("made", 0),
            "accepted": funnel["by_class"].get(label, {}).get("accepted", 0),
        }
        for label in sorted({*train, *planned, *measured["tile"].get("classes_without_train_tiles", ())})
    ]


def _requests(made: list[TileStore]) -> list[dict]:
    """What was made and accepted for each request, deficits of classes and woven slides among them."""
    return [
        {"name": name, "purpose": rows["purpose"].iloc[0], "made": len(rows), "accepted": int(rows["accepted"].sum())}
        for store in made
        for name, rows in store.rows().groupby("request")
    ]


def _thumbnails(real: TileStore) -> list[tuple[str, str]]:
    """Slides, and what was cut from them; smaller where they are several, so that what follows isn't far below."""
    paths = {part: real.folder / part / "thumbnail.jpg" for part in real.parts[:_MOST_THUMBNAILS]}
    shown = _smaller if len(paths) > 1 else data_uri
    return [(part, shown(path)) for part, path in paths.items()]


def _smaller(path: Path) -> str:
    with Image.open(path) as picture:
        picture.thumbnail((_ONE_OF_SEVERAL_PX, _ONE_OF_SEVERAL_PX))
        return data_uri(picture, "jpeg")


def _woven(folder: Path, measured: dict, pages: Path) -> list[dict]:
    """The woven slides, and a page for each."""
    shutil.rmtree(pages / "slides", ignore_errors=True)
    (pages / "slides").mkdir(parents=True)
    out = []
    for name in measured["sample_slides"].get("slides", {}):
        facts = json.loads((folder / name / FACTS).read_text(encoding="utf-8"))
        write_viewer(folder / name, pages / "slides" / f"{name}.html")
        out.append(facts | {"uri": data_uri(folder / name / THUMBNAIL), "page": f"slides/{name}.html"})
    return out


def _woven_sheets(store: TileStore, shown: int) -> list[dict]:
    """Tiles cut from woven slides: those that passed, and those that did not."""
    rows = store.rows()
    text = "Evenly spread over all tiles of woven slides that {} the filters."
    sheets = [
        _sheet("Cut from woven slides, accepted", text.format("passed"), store, spread(rows[rows["accepted"]], shown), "label"),
        _sheet("Cut from woven slides, rejected", text.format("failed"), store, spread(rows[~rows["accepted"]], shown), "reject_reasons"),
    ]  # fmt: skip
    return [sheet for sheet in sheets if sheet]


def _sheets(params: Params, real: TileStore, made: TileStore) -> list[dict]:
    rows, synthetic, shown = real.rows(), made.rows(), params.report.tiles_shown
    augment = synthetic[synthetic["purpose"] == "augment"]
    accepted, rejected = augment[augment["accepted"]], augment[~augment["accepted"]]
    same = rows[(rows["split"] == "train") & rows["label"].isin(augment["label"].unique())]
    sheets = [
        _sheet(
            "Real train tiles of the augmented classes",
            "For comparison with what follows.",
            real,
            spread(same, shown),
            "label",
        ),
        _sheet(
            "Synthetic, accepted",
            "Evenly spread over all that passed the filters, not chosen by eye.",
            made,
            spread(accepted, shown),
            "label",
        ),
        _sheet(
            "Synthetic, rejected",
            "Below each, what rejected it.",
            made,
            spread(rejected, shown),
            "reject_reasons",
        ),
        _nearest(real, made, rows, _most_alike(accepted, shown)),
        _sheet(
            "Synthetic for evaluation",
            "Given held-out conditions, unfiltered; measured, never emitted.",
            made,
            spread(synthetic[synthetic["purpose"] == "evaluate"], shown),
            "label",
        ),
        _masked(made, spread(augment, shown // 2)),
        _pairs(made, augment, shown // 2),
    ]
    return [sheet for sheet in sheets if sheet]


def _most_alike(rows: pd.DataFrame, shown: int) -> pd.DataFrame:
    """Those that lie nearest to a train tile, where that was looked at."""
    if "near_copy_score" not in rows:
        return rows.head(0)
    return spread(rows.sort_values("near_copy_score", ascending=False).head(shown), shown // 2)


def _sheet(title: str, text: str, store: TileStore, rows: pd.DataFrame, caption: str) -> dict | None:
    if rows.empty:
        return None
    captions = rows[caption].fillna("unlabelled").astype(str).tolist()
    return {"title": title, "text": text, "uri": data_uri(contact_sheet(store.read(rows), captions=captions))}


def _masked(made: TileStore, rows: pd.DataFrame) -> dict | None:
    if rows.empty or not made.has("mask"):
        return None
    edges = made.read(rows, "edge") if made.has("edge") else None
    pairs = np.stack([mask_picture(made.read(rows, "mask"), edges), made.read(rows)], 1)
    captions = [text for request in rows["request"] for text in ("mask given", request)]
    uri = data_uri(contact_sheet(pairs.reshape(-1, *pairs.shape[2:]), captions=captions))
    text = "Unfiltered, evenly spread over what was made to augment; a colour for each class."
    return {"title": "Masks, and what was made of them", "uri": uri, "text": text}


def _pairs(made: TileStore, rows: pd.DataFrame, shown: int) -> dict | None:
    as_is, changed = (rows[rows["tile_id"].str.endswith(end)] for end in (AS_IS, CHANGED))
    as_is, changed = as_is.sort_values("tile_id").head(shown), changed.sort_values("tile_id").head(shown)
    if as_is.empty:
        return None
    pairs = np.stack([made.read(as_is), made.read(changed)], 1)
    captions = [text for request in as_is["request"] for text in (f"{request}: as is", "changed")]
    uri = data_uri(contact_sheet(pairs.reshape(-1, *pairs.shape[2:]), captions=captions))
    text = "Two tiles of one seed, unfiltered: under the conditions that were lent, and with one of them changed."
    return {"title": "Counterfactual pairs", "uri": uri, "text": text}


def _nearest(real: TileStore, made: TileStore, rows: pd.DataFrame, chosen: pd.DataFrame) -> dict | None:
    if chosen.empty:
        return None
    matches = rows.set_index("tile_id").loc[chosen["nearest_train_tile"]]
    pairs = np.stack([made.read(chosen), real.read(matches.reset_index())], 1)
    captions = [text for score in chosen["near_copy_score"] for text in (f"made  r={score:.2f}", "nearest real")]
    uri = data_uri(contact_sheet(pairs.reshape(-1, *pairs.shape[2:]), captions=captions))
    return {
        "title": "Accepted, beside the nearest train tile",
        "uri": uri,
        "text": "The most alike of those accepted; r is the correlation after turning, mirroring and shifting.",
    }


def _comparison(evaluated: dict) -> list[tuple[str, dict]]:
    return [(name, evaluated[name]) for name in ("unfiltered", "accepted", "woven") if evaluated.get(name)]


def _curves(reports: Path) -> list[str]:
    stages = (
        "train_encoders/curves/text",
        "train_encoders/curves/rna",
        "train_autoencoder/curves",
        "train_denoiser/curves",
    )
    tables = {stage: reports / stage / "plots" / "metrics" / "loss.tsv" for stage in stages}
    titled = {stage.replace("/curves", "").replace("/", ": "): table for stage, table in tables.items()}
    return [data_uri(curve_picture(t, f"{stage}: loss"), "svg+xml") for stage, t in titled.items() if t.exists()]


def _measured(measured: dict) -> list[tuple[str, str]]:
    out = []
    for stage in ("train_encoders", "train_autoencoder", "train_denoiser", "train_filters"):
        for name, value in _flat(measured[stage]):
            if isinstance(value, int | float):
                out.append((f"{stage}: {name}", f"{value:.4g}"))
    return out


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def _provenance(measured: dict, made: TileStore) -> list[tuple[str, str]]:
    lineage = _read(made.folder / "lineage.json")
    out = [("generator sha256", measured["sample"].get("generator_sha256", ""))]
    for record in lineage.values():
        out.append(("trained on groups", ", ".join(record["groups"])))
        out.append(("ancestors that nobody knows", ", ".join(record["unknown"]) or "none"))
    return [*out, ("histoloom", histoloom.__version__)]
