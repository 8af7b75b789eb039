"""The section `train_encoders`: what turns conditions into numbers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from histoloom.config.base import Distinct, Fraction, Key, Positive, Section, Size
from histoloom.config.extractors import TowerName
from histoloom.config.file_keys import Names

SelfSupervision = Literal["simclr", "vicreg", "barlow_twins"]


class Text(Section):
    """The text tower. `train` makes an open_clip CLIP from the manifest's tile-caption pairs."""

    source: Annotated[str, Names.MODEL] = "train"
    """train, the name of a packaged model, a folder (one of Stable Diffusion's form too), hf-hub:ORG/NAME (open_clip) or
    transformers:ORG/NAME (PLIP: vinid/plip)"""
    revision: str | None = Field(None, description="commit of the hub's repository")
    max_tokens: Positive | None = None
    """most tokens of a caption that are read, in chunks of context_length; unstated, one chunk"""
    padding: Literal["masked", "read"] = "masked"
    """read: the denoiser also reads the tokens that fill up a short caption, as Stable Diffusion does; masked: it does not"""
    image_px: Size = 64
    """of train: tiles are resized to this side"""
    width: Size = 64
    """of train: channels of the text encoder"""
    layers: Size = 2
    """of train: transformer layers of the text encoder"""
    heads: Size = 4
    """of train: attention heads of the text encoder"""
    context_length: Size = 24
    """of train: tokens that the text encoder reads at once"""
    steps: Positive = 200
    """of train: steps of the optimiser"""
    batch_size: Size = 64
    """of train: pairs of tile and caption in a step"""
    learning_rate: float = Field(5e-4, gt=0)
    """of train"""
    noised: bool = False
    """of train: show it tiles with noise of every level, so that it can guide the sampling of pixels (sample.classifier_guidance;
    Nichol et al. 2022, GLIDE)"""

    @model_validator(mode="after")
    def _is_trained_if_noised(self):
        if self.noised and self.source != "train":
            raise ValueError(f"noised is of a tower that is trained here, and source is {self.source}")
        return self


class SampleTable(Section):
    """A table of what is known of patients, slides or spots, and how its keys are those of the study."""

    table: Annotated[str | None, Names.FILE] = None
    key: Key = Field("patient_id", description="which of a tile's columns names its sample")
    key_pattern: str | None = None
    """regular expression whose group is the id in each of the table's keys: ^(TCGA-[^-]+-[^-]+) takes the patient's id
    from a sample's barcode; unstated, the whole key is the id"""
    min_matched: Fraction = 0.5
    """fraction of the train split's samples that the table must have; less is a fault"""

    @field_validator("key_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} needs one group in parentheses, around the id, and has {groups}")
        return pattern

    @property
    def section(self) -> str:
        """Where params state it."""
        return f"train_encoders.{type(self).__name__.lower()}"


class Rna(SampleTable):
    """A code of an expression profile, from a beta-VAE (Higgins et al. 2017; RNA-CDM, Carrillo-Perez et al. 2024)."""

    table: Annotated[str | None, Names.FILE] = None
    """Parquet, CSV or h5ad: samples by genes, or genes by samples"""
    layer: str | None = Field(None, description="what to read of an h5ad: a layer's name, raw, or X; unstated, X")
    init: Annotated[str, Names.MODEL] = "train"
    """train, the name of a packaged model, or a folder that an earlier train_encoders wrote (its rna/)"""
    transform: Literal["log_counts", "none"] = "log_counts"
    """log_counts: the natural log of 1 + counts or amounts (TPM, FPKM) per 10,000; none: values as they are"""
    values: Literal["auto", "linear", "log"] = "auto"
    """what the table holds: linear: counts or amounts; log: logarithms or scores; auto: the values decide"""
    max_genes: Positive = Field(
        17655, description="most genes that are kept: the most variable ones of the train split"
    )
    hidden: tuple[Positive, ...] = (6000, 4000, 2048)
    """of train: widths of the encoder's layers; the decoder has them in reverse"""
    code: Size = 200
    """of train: numbers in the code of a profile"""
    beta: float = Field(0.005, ge=0, description="weight of the KL term")
    steps: Positive = 2000
    """of train: steps of the optimiser"""
    batch_size: Size = 64
    """of train: profiles in a step"""
    learning_rate: float = Field(3e-4, gt=0)
    """of train"""

    @model_validator(mode="after")
    def _log_once(self):
        if self.values == "log" and self.transform == "log_counts":
            raise ValueError("values: log and transform: log_counts would take logarithms twice; set transform: none")
        return self


class Genotype(SampleTable):
    """Mutations and copy numbers as a multi-hot vector with a third state, not tested."""

    table: Annotated[str | None, Names.FILE] = None
    """CSV with the key's column, and a column for each gene or marker"""
    columns: tuple[str, ...] = Field((), description="markers that are used; empty means all of the table's")
    wild_type: tuple[str, ...] = ("WT", "wild type", "wildtype")
    """values of a marker that is not altered; case doesn't count"""
    not_tested: tuple[str, ...] = ("", "NS", "NA", "NT", "NaN")
    """values of a marker that was not tested; case doesn't count"""
    altered: dict[str, tuple[str, ...]] = Field(
        {
            "altered": ("MUT",),
            "amplification": ("AMP",),
            "gain": ("GAIN",),
            "loss": ("DEL", "LOSS", "HETLOSS"),
            "deep_deletion": ("HOMDEL",),
        }
    )
    """name of an alteration to its values; case doesn't count. Protein changes such as R175H count as the first name"""
    numbers: Literal["auto", "mutation", "gistic"] | dict[str, Literal["mutation", "gistic"]] = "auto"
    """what numbers mean: mutation, 0 wild type and 1 altered; gistic, -2 deep_deletion, -1 loss, 0 wild type, 1 gain,
    2 amplification; or one of them for each marker. auto: the column decides; an unclear one is a fault"""

    @model_validator(mode="after")
    def _distinct(self):
        meanings = [("wild_type", self.wild_type), ("not_tested", self.not_tested), *self.altered.items()]
        first: dict[str, str] = {}
        for name, values in meanings:
            for value in values:
                if first.setdefault(value.casefold(), name) != name:
                    raise ValueError(f"{value!r} can't be both {first[value.casefold()]} and {name}")
        if not self.altered:
            raise ValueError("altered names no alteration; a protein change is the first that it names")
        for state in self.altered:
            if not re.fullmatch(r"[^\s=;]+", state) or state in ("wt", "tested", "not_tested"):
                raise ValueError(
                    f"altered: {state!r} can't name an alteration; use a word, and not wt, tested or not_tested"
                )
        return self


class ImageTower(Section):
    """What looks at a tile. `train` makes a small ResNet from the train tiles, without labels."""

    source: Annotated[TowerName, Names.EXTRACTOR] = "efficientnet-lite0"
    """efficientnet-lite0 (packaged); train; a packaged model that has such an encoder, or a folder that an earlier
    train_encoders wrote (its image/); or another network of evaluate.features, except efficientnet-lite2"""
    method: SelfSupervision = "vicreg"
    """of train: the self-supervised loss"""
    image_px: Annotated[int, Field(ge=16)] = Field(64, description="tiles are resized to this side")
    # With fewer, oneDNN 3.12 gives a strided 1 x 1 convolution wrong gradients, or crashes, on a CPU that has AVX2 and no AVX-512.
    width: Annotated[int, Field(ge=8)] = Field(16, description="channels of the first stage, at least 8")
    size: Annotated[int, Field(ge=8)] = Field(128, description="channels of the embedding")
    steps: Positive = 600
    """of train: steps of the optimiser"""
    batch_size: Annotated[int, Field(ge=8)] = 64
    """of train: tiles in a step"""
    learning_rate: float = Field(2e-3, gt=0)
    """of train"""


class Degrade(Section):
    """What a picture that lies over the tile lost, in this order; nothing where none is stated."""

    blur_px: float = Field(0.0, ge=0, description="blur the picture by a Gaussian of this standard deviation")
    factor: Literal[1, 2, 4, 8, 16] = 1
    """reduce the picture by this factor, and enlarge it again"""
    noise: float = Field(0.0, ge=0, description="add Gaussian noise of this standard deviation, grey levels")
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """save the picture as JPEG of this quality; unstated, it is not saved as JPEG"""


class SlideColumns(Section):
    """Columns of slides.csv that a condition is read from. A slide whose field is empty is given none of it."""

    columns: Annotated[tuple[str, ...], Distinct] = ()
    """columns of slides.csv that the condition is read from"""


class TrainEncoders(Section):
    """Only the encoders of the conditions that train_denoiser.conditions names are made."""

    text: Text = Text()
    rna: Rna = Rna()
    genotype: Genotype = Genotype()
    image: ImageTower = ImageTower()
    picture: Degrade = Degrade()
    """of the picture that the condition `picture` shows: the tile, degraded so"""
    cohort: SlideColumns = SlideColumns()
    """such as site, scanner or protocol; one hot over the values of each"""
    number: SlideColumns = Field(SlideColumns(), description="such as meta_age; at the train split's mean and scale")
