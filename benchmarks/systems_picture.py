"""A picture of what a system makes, beside real tiles that it did not see."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.report.pictures import contact_sheet, mask_picture

_COLUMNS, _LINE_PX = 10, 20


def write_picture(code: ModuleType, study: Study, path: Path) -> None:
    """Write rows of tiles as JPEG: real ones of the test split, then each request's, or what the system's `shown` names."""
    shown = getattr(code, "shown", _of_requests)(study)
    sheets = [(title, contact_sheet(tiles[:_COLUMNS], _COLUMNS)) for title, tiles in shown.items()]
    width = max(sheet.width for _, sheet in sheets)
    picture = Image.new("RGB", (width, sum(sheet.height + _LINE_PX for _, sheet in sheets)), "white")
    draw, y = ImageDraw.Draw(picture), 0
    for title, sheet in sheets:
        draw.text((2, y + 2), title, fill=(40, 40, 40), font=ImageFont.load_default(13))
        picture.paste(sheet, (0, y + _LINE_PX))
        y += sheet.height + _LINE_PX
    picture.save(path, quality=85)


def _of_requests(study: Study) -> dict[str, np.ndarray]:
    real = study.real()
    rows = real.rows()
    out = {"real, held out": real.read(_few(rows[rows["split"] == "test"]))}
    synthetic = TileStore(study.synthetic)
    for request, made in synthetic.rows().groupby("request", sort=False):
        few = _few(made)
        if synthetic.has("mask"):
            out[f"{request}: masks"] = mask_picture(synthetic.read(few, "mask"))
        out[str(request)] = synthetic.read(few)
    return out


def _few(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each label as many."""
    if rows["label"].isna().all():
        return spread(rows, _COLUMNS)
    each = -(-_COLUMNS // rows["label"].nunique())
    return pd.concat([spread(own, each) for _, own in rows.groupby("label")])
