"""One self-contained page from what the stages measured, and from their tiles."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

import histoloom
from histoloom.data.store import TileStore, stores_in
from histoloom.data.study_folder import Study
from histoloom.report.answer import answers
from histoloom.report.pictures import curve_picture, data_uri
from histoloom.report.sheets import predicted_sheets, sheets_of, woven_sheets
from histoloom.report.summary import in_short, severity, told_apart_table, uplift_table
from histoloom.report.viewer import write_viewer
from histoloom.slides.woven import FACTS, THUMBNAIL

_MOST_THUMBNAILS = 12
_ONE_OF_SEVERAL_PX = 480
_MEASURED = (
    "tile", "train_encoders", "train_autoencoder", "train_denoiser", "plan", "sample", "sample_slides", "train_filters",
    "filter", "evaluate", "emit", "uplift",
)  # fmt: skip
TRAINED = ("train_encoders", "train_autoencoder", "train_denoiser")
"""Those that each of several models has."""
Metrics = dict[str, Any]
"""What a stage measured, or what all did: stage to its metrics."""


def write_report(study: Study, output: Path) -> None:
    """Write `output`, an HTML page that asks nothing of the network; strings of the user are escaped."""
    params, reports, params_file = study.params, study.reports(), study.root / "params.yaml"
    real, shown = study.real(), params.report.tiles_shown
    sampled, predicted = stores_in([study.synthetic], rows_from=study.verdicts), stores_in([study.predicted])
    woven = stores_in([study.woven_tiles], rows_from=study.verdicts)
    models = [*params.models] or [""]
    measured = {name: _read(reports / name / "metrics.json") for name in _MEASURED}
    for name in TRAINED if params.models else ():
        measured[name] = {model: _read(reports / name / model / "metrics.json") for model in models}
    environment = Environment(loader=PackageLoader("histoloom.report", "."), autoescape=True, undefined=StrictUndefined)
    with (reports / "tile" / "slides.csv").open(encoding="utf-8") as stream:
        slides = list(csv.DictReader(stream))
    page = environment.get_template("page.html").render(
        title=params.report.title,
        version=histoloom.__version__,
        seed=params.seed,
        real=measured["tile"],
        answers=answers(measured["uplift"]),
        in_short=in_short(measured),
        labels_kept=params.tile.labels.unlabelled == "keep",
        **_of_filters(measured, reports),
        requests=_requests([*sampled, *woven]),
        slides=slides,
        thumbnails=_thumbnails(real),
        more_thumbnails=max(0, len(real.parts) - _MOST_THUMBNAILS),
        woven=_woven(study.woven, measured, output.parent),
        sheets=[
            *(s for store in sampled for s in sheets_of(real, store, shown)),
            *(s for store in woven for s in woven_sheets(store, shown)),
            *(s for store in predicted for s in predicted_sheets(real, store, shown)),
        ],
        **_of_distances(measured["evaluate"]),
        uplift=measured["uplift"],
        uplift_table=uplift_table(measured["uplift"]),
        curves=[picture for model in models for picture in _curves(reports, model)],
        reconstruction=_picture(reports / "train_autoencoder" / models[-1] / "reconstruction.png"),
        measured=_measured(measured),
        provenance=_provenance(measured, [*sampled, *predicted]),
        params_text=params_file.read_text(encoding="utf-8") if params_file.exists() else "",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")


def _of_filters(measured: Metrics, reports: Path) -> dict[str, Any]:
    """What the page shows of yields, reasons and thresholds."""
    funnel = measured["filter"].get("augment", {"synthetic": 0, "accepted": 0, "by_class": {}, "rejected_for": {}})
    planned = ("planned", measured["plan"]["augment"])
    steps = [planned, ("synthetic", funnel["synthetic"]), ("accepted", funnel["accepted"])]
    return {
        "funnel": funnel,
        "funnel_steps": steps,
        "funnel_most": max(count for _, count in steps),
        "classes": _classes(measured, funnel),
        "of_slides": measured["filter"].get("woven", {}),
        "rejected_for": list(funnel["rejected_for"].items()),
        "calibration": _picture(reports / "train_filters" / "calibration.png"),
        "severity": severity(measured["train_filters"] | measured["filter"].get("of_generator", {})),
    }


def _of_distances(evaluated: Metrics) -> dict[str, Any]:
    """What the page shows of distances from real tiles."""
    compared = [
        (name, evaluated[name]) for name in ("unfiltered", "accepted", "woven", "rebuilt") if evaluated.get(name)
    ]
    return {
        "comparison": compared,
        "extractor": evaluated.get("extractor"),
        "reference": evaluated.get("reference"),
        "extractor_also": evaluated.get("extractor_also", []),
        "by_class": evaluated.get("by_class", {}),
        "told_apart": told_apart_table(evaluated),
    }


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _picture(path: Path) -> str | None:
    return data_uri(path) if path.exists() else None


def _classes(measured: Metrics, funnel: dict) -> list[dict]:
    train = measured["tile"]["tiles_by_split"].get("train", {})
    planned = measured["plan"]["classes"]
    return [
        {
            "label": label,
            "train": train.get(label, 0),
            "wanted": planned.get(label, {}).get("wanted", "-"),
            "synthetic": funnel["by_class"].get(label, {}).get("synthetic", 0),
            "accepted": funnel["by_class"].get(label, {}).get("accepted", 0),
        }
        for label in sorted({*train, *planned, *measured["tile"].get("classes_without_train_tiles", ())})
    ]


def _requests(stores: list[TileStore]) -> list[dict]:
    """How many synthetic tiles each request has, and how many are accepted; classes in deficit and woven slides are requests."""
    return [
        {
            "name": name,
            "purpose": rows["purpose"].iloc[0],
            "synthetic": len(rows),
            "accepted": int(rows["accepted"].sum()),
        }
        for store in stores
        for name, rows in store.rows(("request", "purpose", "accepted")).groupby("request")
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


def _woven(folder: Path, measured: Metrics, pages: Path) -> list[dict]:
    """The woven slides, and a page for each."""
    shutil.rmtree(pages / "slides", ignore_errors=True)
    (pages / "slides").mkdir(parents=True)
    out = []
    for name in measured["sample_slides"].get("slides", {}):
        facts = json.loads((folder / name / FACTS).read_text(encoding="utf-8"))
        write_viewer(folder / name, pages / "slides" / f"{name}.html")
        out.append(facts | {"uri": data_uri(folder / name / THUMBNAIL), "page": f"slides/{name}.html"})
    return out


def _curves(reports: Path, model: str) -> list[tuple[str, str]]:
    """The titles and curves of one of several models; '' stands for the only one."""
    stages = (
        ("train_encoders", "text"),
        ("train_encoders", "rna"),
        ("train_autoencoder", ""),
        ("train_denoiser", ""),
    )
    tables = {
        ": ".join(filter(None, (model, stage, part))): reports
        / stage
        / model
        / "curves"
        / part
        / "plots/metrics/loss.tsv"
        for stage, part in stages
    }
    titled = [(f"{title}: loss", table) for title, table in tables.items() if table.exists()]
    return [(title, data_uri(curve_picture(table, title), "svg+xml")) for title, table in titled]


def _measured(measured: Metrics) -> list[tuple[str, str]]:
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


def _provenance(measured: Metrics, made: list[TileStore]) -> list[tuple[str, str]]:
    lineage = {
        generator: record for store in made for generator, record in _read(store.folder / "lineage.json").items()
    }
    out = [("generator sha256", measured["sample"].get("generator_sha256", ""))]
    for record in lineage.values():
        out.append(("trained on groups", ", ".join(record["groups"])))
        out.append(("ancestors that nobody knows", ", ".join(record["unknown"]) or "none"))
    return [*out, ("histoloom", histoloom.__version__)]
