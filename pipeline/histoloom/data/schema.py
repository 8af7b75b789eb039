"""The columns of the tables, with units in their names."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "val", "test")

REQUIRED_SLIDE_COLUMNS = ("slide_id", "path", "patient_id")
OPTIONAL_SLIDE_COLUMNS = (
    "mpp",
    "label",
    "caption",
    "split",
    "annotations",
    "mask",
    "instances",
    "partner",
    "organ",
    "stain",
    "site",
    "licence",
    "dataset",
)
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A public data set's name: it stands before ids, and a colon between."""
SPOT_COLUMNS = ("spot_id", "slide_id", "x_level0_px", "y_level0_px", "label")

TILE_ROW = pa.schema(
    [
        ("tile_id", pa.string()),
        ("source", pa.string()),
        ("slide_id", pa.string()),
        ("patient_id", pa.string()),
        ("split_group", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("x_level0_px", pa.int64()),
        ("y_level0_px", pa.int64()),
        ("mpp", pa.float64()),
        ("tissue_fraction", pa.float64()),
        ("caption", pa.string()),
        ("spot_id", pa.string()),
        ("masked", pa.bool_()),
        ("dataset", pa.string()),
        ("slide_fields", pa.string()),
    ]
)
"""One row a tile. `spot_id` is the spot that labelled it, `masked` whether its mask says what it shows; `x_level0_px`,
`y_level0_px` are its upper left corner on the slide, `mpp` its scale. `dataset` is the public set that its slide is of, and
`slide_fields` what slides.csv says of the slide in columns of the user's own, as JSON; older stores lack both.
"""

PLAN_ROW = pa.schema(
    [
        ("tile_id", pa.string()),
        ("part", pa.string()),
        ("batch", pa.int64()),
        ("slot", pa.int64()),
        ("seed", pa.uint64()),
        ("purpose", pa.string()),
        ("request", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("rna", pa.string()),
        ("genotype", pa.string()),
        ("cohort", pa.string()),
        ("number", pa.string()),
        ("mpp", pa.float64()),
        ("condition_ref", pa.string()),
        ("split_group", pa.string()),
        ("split", pa.string()),
        ("program", pa.string()),
        ("input_ref", pa.string()),
        ("input_group", pa.string()),
        ("input_conditions", pa.string()),
    ]
)
"""One row a tile to be made. `condition_ref` is the tile whose conditions it is given, `request` what asked for it.

`program` is how the model is run (config/program.py), empty where it begins from noise alone. `input_ref` is the tile whose arrays are read then,
`input_group` its split group, and `input_conditions` JSON of its own conditions by column, where it is inverted under them.

`rna` is the key of an expression profile, `genotype` the markers' states as text (conditions/genotype.py), `cohort` and `number` are
JSON of a column of slides.csv to its value.
"""

GUIDANCE = pa.list_(
    pa.struct([("condition", pa.string()), ("scale", pa.float64()), ("start", pa.float64()), ("end", pa.float64())])
)
"""Guidance of a synthetic tile. `condition` is "all" where one scale and one interval hold for all conditions. `start` and
`end` are fractions of the training timesteps, 1 being noise, between which the scale acts; outside, a condition counts once.
"""

SYNTHETIC_ROW = pa.schema(
    [
        *(field for field in TILE_ROW if field.name not in ("dataset", "slide_fields")),
        ("rna", pa.string()),
        ("genotype", pa.string()),
        ("cohort", pa.string()),
        ("number", pa.string()),
        ("seed", pa.uint64()),
        ("scheduler", pa.string()),
        ("steps", pa.int64()),
        ("precision", pa.string()),
        ("window_layout", pa.string()),
        ("generator_sha256", pa.string()),
        ("condition_ref", pa.string()),
        ("program", pa.string()),
        ("input_ref", pa.string()),
        ("guidance", GUIDANCE),
        ("request", pa.string()),
        ("purpose", pa.string()),
        ("ancestors", pa.list_(pa.string())),
    ]
)
"""A tile row of a synthetic tile. `steps` are the sampler's, `precision` is what the networks computed in, `window_layout` how
windows were laid on the slide that it was cut from (null for a single tile); `ancestors` are the split groups that
its conditions come from; its generator's are in the lineage.
"""

VERDICT_COLUMNS = {"accepted": pa.bool_(), "reject_reasons": pa.list_(pa.string())}
"""What verdicts add to a synthetic row beside the filters' scores; no reason where the tile is accepted."""
REFUSED = "too little of its class passed"
"""The reason of tiles of a class of which less than `filter.min_yield` passed: none of it is accepted to augment."""


def write_rows(rows: pd.DataFrame, path: Path, schema: pa.Schema) -> None:
    """Write a table with exactly the schema's columns in their order."""
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path)
