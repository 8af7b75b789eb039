"""The section `train_encoders`: what turns conditions into numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import ExtractorName, Key, Positive, Section


class Text(Section):
    """The text tower. `train` makes an open_clip CLIP from the manifest's tile-caption pairs."""

    source: str = Field(
        "train",
        description="train, the name of a packaged model, a folder, hf-hub:ORG/NAME (open_clip) or "
        "transformers:ORG/NAME (PLIP: vinid/plip)",
    )
    revision: str | None = Field(None, description="commit of the hub's repository")
    max_tokens: Positive | None = Field(
        None, description="longer captions are read in chunks of the tower's length up to this; unstated, one chunk"
    )
    image_px: Positive = 64
    width: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    context_length: Positive = 24
    steps: Positive = 200
    batch_size: Positive = 64
    learning_rate: float = Field(5e-4, gt=0)


class Rna(Section):
    """A code of an expression profile, from a beta-VAE (Higgins et al. 2017; RNA-CDM, Carrillo-Perez et al. 2024)."""

    table: str | None = Field(None, description="Parquet or h5ad: samples by genes, or genes by samples")
    key: Key = Field("patient_id", description="which of a tile's columns names its sample")
    init: str = Field(
        "train",
        description="train, the name of a packaged model, or a folder that an earlier train_encoders wrote (its rna/)",
    )
    transform: Literal["log_counts", "none"] = Field("log_counts", description="counts to log of 1 + counts per 10,000")
    max_genes: Positive = Field(17655, description="the most variable of the train split are kept")
    hidden: tuple[Positive, ...] = (6000, 4000, 2048)
    code: Positive = 200
    beta: float = Field(0.005, ge=0, description="weight of the KL term")
    steps: Positive = 2000
    batch_size: Positive = 64
    learning_rate: float = Field(3e-4, gt=0)


class Genotype(Section):
    """Mutations and copy numbers as a multi-hot vector with a third state, not tested."""

    table: str | None = Field(None, description="CSV: the key's column, and a column a gene or marker")
    key: Key = "patient_id"
    columns: tuple[str, ...] = Field((), description="markers that are used; empty means all of the table's")
    wild_type: tuple[str, ...] = Field(("WT", "wt", "0"), description="values of a marker that is not altered")
    not_tested: tuple[str, ...] = Field(("", "NS", "NA", "NT"), description="values of a marker that was not tested")
    altered: dict[str, tuple[str, ...]] = Field(
        {"altered": ("MUT", "mut", "1"), "gain": ("AMP", "GAIN", "+1", "+2", "2"), "loss": ("DEL", "LOSS", "-1", "-2")},
        description="name of an alteration to its values; a protein change such as R175H is the first of them",
    )


class ImageTower(Section):
    source: ExtractorName = Field(
        "efficientnet-lite0",
        description="efficientnet-lite0 (packaged), or another of what evaluate.features names",
    )


class TrainEncoders(Section):
    """What turns conditions into numbers; only those that train_denoiser.conditions names are made."""

    text: Text = Text()
    rna: Rna = Rna()
    genotype: Genotype = Genotype()
    image: ImageTower = ImageTower()
