"""The section `tile`: what is cut from the slides, and how it is labelled and split."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from histoloom.config.base import Distinct, Fraction, Natural, Positive, Scale, Section, Size
from histoloom.config.file_keys import Names
from histoloom.config.file_names import ClassName
from histoloom.config.tile_sets import TileSet


class Tissue(Section):
    """Tissue is where optical density exceeds 0.6 of Otsu's threshold, at a coarse scale, padding and pen left out."""

    mpp: Scale = Field(8.0, description="scale of the tissue mask, µm/px")
    min_fraction: Fraction = 0.4
    """a tile with less tissue than this is left out"""
    min_od: float = Field(0.06, ge=0, description="least threshold, so that blank glass is not taken for tissue")
    max_od_above_glass: float = Field(0.075, gt=0)
    """how far the threshold may lie above the optical density of glass, so that pale tissue beside dark tissue isn't lost"""
    min_area_um2: float = Field(2000.0, ge=0, description="smaller pieces do not count as tissue")
    leave_out: Annotated[tuple[Literal["padding", "pen"], ...], Distinct] = ("padding", "pen")
    """what is left out although it is dense. Pen is found by its colour: take it out of the list for blue and green stains"""
    max_artefact: Fraction = Field(0.1, description="a tile with more padding and pen than this is left out")
    min_sharpness: float = Field(0.1, ge=0)
    """tiles below it are out of focus: standard deviation of the Laplacian over mean, of optical density at 1 µm/px"""
    out_of_focus: Literal["keep", "drop"] = Field(
        "keep", description="keep or drop tiles out of focus; they are counted"
    )


_MOST_CLASSES = 254
"""Of pixels: their ids are bytes, 0 is background and 255 unknown."""


STAINED = ("nucleus", "clear")
"""The classes of a mask that its colours can tell."""


class Labels(Section):
    source: Literal["polygons", "raster", "spots", "slide", "none"] = "polygons"
    """where labels come from. Polygons are GeoJSON, raster is images of class ids, spots is a table of spots, slide is the column label
    of slides.csv; with none there are no labels"""
    classes: tuple[ClassName, ...] = Field((), validate_default=True)
    """names of the tile labels. A class's number is its place here, from 0; unstated, those of the package that
    train_denoiser.init names"""
    min_fraction: Fraction = Field(0.5, description="a tile takes the class that covers this much of it")
    spot_radius_um: float = Field(
        50.0, gt=0, description="largest distance from a tile to the spot whose label it takes"
    )
    unlabelled: Literal["drop", "keep"] = "drop"
    """drop or keep tiles without a label, or whose mask is hidden. Kept tiles train the autoencoder and the denoiser"""
    fraction: float = Field(1.0, gt=0, le=1)
    """fraction of the train split's labels and annotated masks that is visible; of the val split's too, if there is a test split"""
    fraction_of: Literal["tile", "slide", "patient"] = "tile"
    """what is visible or hidden as a whole: squares of two tiles a side, slides or patients"""

    @field_validator("classes")
    @classmethod
    def _named(cls, classes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not classes and (source := info.data.get("source", "none")) != "none":
            raise ValueError(
                f"labels.source is {source}, and labels.classes names none: name the classes, or set source: none"
            )
        if info.data.get("source") in ("polygons", "raster") and len(classes) > _MOST_CLASSES:
            raise ValueError(
                f"labels.classes names {len(classes)}, and of polygons and rasters {_MOST_CLASSES} are the most: merge some"
            )
        return classes

    @property
    def given(self) -> bool:
        """Whether the study has labels."""
        return bool(self.named)

    @property
    def named(self) -> tuple[str, ...]:
        """The classes that tiles are labelled with; none where the study has no labels."""
        return () if self.source == "none" else self.classes


class Masks(Section):
    source: Literal["polygons", "raster", "spots", "stain", "none"] = "none"
    """where masks come from. stain: nuclei and clear space, found by their colour, without annotations. spots: each pixel takes the label of the
    nearest spot within labels.spot_radius_um; if classes name nucleus or clear, these are found by stain and lie on top"""
    classes: tuple[ClassName, ...] = Field((), max_length=_MOST_CLASSES)
    """the first class has the id 1; 0 is background, 255 is unknown. Of stain: nucleus, clear or both"""
    least_certainty: Fraction = 0.5
    """pixels of a predicted mask (column predicted of slides.csv) are unknown if the learner was less sure than this"""

    @property
    def by_stain(self) -> bool:
        """Whether nuclei or clear space are found by their colour."""
        return self.source == "stain" or bool(self.source == "spots" and {*self.classes} & {*STAINED})

    @property
    def drawn(self) -> bool:
        """Whether they are annotations, in place of which a learner's may stand."""
        return self.source in ("polygons", "raster")

    @model_validator(mode="after")
    def _named(self):
        if self.source != "none" and not self.classes:
            raise ValueError(f"masks.source is {self.source}, and masks.classes names none: name the classes")
        return self

    @model_validator(mode="after")
    def _told_by_stain(self):
        if self.source == "stain" and self.classes not in (STAINED, STAINED[:1], STAINED[1:]):
            raise ValueError("source: stain tells nucleus and clear: masks.classes is one of them or [nucleus, clear]")
        return self


class Repair(Section):
    """Pen on train tiles, made anew by a model that another study trained. Off unless a model is named."""

    model: Annotated[str, Names.MODEL] = "none"
    """model that replaces pen on train tiles: none, the name of a packaged model, or the models folder of a study. It is run without conditions"""
    max_pen: Fraction = Field(0.3, description="train tiles with more pen than this are left out, as without repair")
    steps: Positive = Field(50, description="of DDIM")
    rounds: Positive = Field(4, description="how often each step is taken, so that the region fits what is kept")

    @property
    def is_on(self) -> bool:
        return self.model != "none"


class Region(Section):
    """A grid of regions laid over a slide, with a gap kept free between them."""

    rows: Size = 6
    """of the grid"""
    cols: Size = 3
    """of the grid"""
    gap_um: float = Field(16.0, ge=0)
    """width of the gap between regions. Tiles that reach into it are dropped, µm"""


class Split(Section):
    group: Literal["patient", "slide", "region"] = "patient"
    """unit that is never divided between splits"""
    fractions: dict[Literal["train", "val", "test"], Fraction] = Field({"train": 0.7, "val": 0.15, "test": 0.15})
    """fractions of the groups whose split the manifest does not state"""
    region: Region = Region()
    assign: dict[str, Literal["train", "val", "test"]] = Field(
        {}, description="splits that you state by hand: split group to split"
    )

    @model_validator(mode="after")
    def _sums_to_one(self):
        if abs(sum(self.fractions.values()) - 1) > 1e-6 or self.fractions.get("train", 0) <= 0:
            raise ValueError("fractions of train, val and test must add up to 1, and train must have some")
        return self


class Tile(Section):
    nullable: ClassVar[tuple[str, ...]] = ("manifest",)
    manifest: Annotated[str | None, Names.FILE] = "manifests/slides.csv"
    """table of the slides; null if all tiles come from sets"""
    sets: tuple[TileSet, ...] = Field((), description="tiles that were cut elsewhere")
    spots: Annotated[str | None, Names.FILE] = None
    """CSV of spots: spot_id, slide_id, x_level0_px, y_level0_px, label"""
    annotations_root: Annotated[str, Names.FILE] = "manifests/annotations"
    """folder of the annotations that the manifest names"""
    annotations_origin: Literal["bounds", "level0"] = "bounds"
    """where coordinates of GeoJSON count from: the corner of the scanned part (openslide.bounds-x, -y), as in QuPath,
    or of level 0, as in ASAP. They differ if a file states bounds (MRXS, SCN)"""
    cell_outline: Literal["cell", "nucleus"] = "cell"
    """which outline of QuPath's cells is taken: detected cells have two"""
    max_outside_fraction: Fraction = 0.1
    """fraction of a slide's polygons (by number or area) or spots that may lie beyond it; more is a fault"""
    slides_root: Annotated[str, Names.FILE] = "data/slides"
    """folder of the slides that the manifest names, or an address such as s3://bucket/slides or https://host/slides"""
    remote_cache: Annotated[str, Names.FILE] = ".histoloom/remote"
    """folder to which files at addresses are copied. Nothing is removed from it"""
    mpp: Scale = Field(
        description="scale at which tiles are cut, µm/px; unstated, that of the package that train_denoiser.init names"
    )
    more_mpp: tuple[Scale, ...] = ()
    """further scales at which slides and sets are cut, µm/px (condition: magnification)"""
    upsample: bool = Field(False, description="allow a scale finer than the slide's own")
    tile_px: Size = 256
    """side of a tile"""
    stride_px: Positive = 256
    """distance from one tile to the next; below tile_px, tiles overlap"""
    edge: Literal["drop", "shift"] = "drop"
    """the strip at the right and lower border that fills no tile: left out, or covered by tiles that overlap others"""
    tissue: Tissue = Tissue()
    stain: Literal["none", "macenko", "reinhard"] = "none"
    """normalisation of stain"""
    repair: Repair = Repair()
    labels: Labels
    masks: Masks = Masks()
    caption: str = "H&E, {composition}"
    """template with {label}, {composition}, {caption}, manifest columns, a spot's {cluster} and {annotation}; with
    masks by stain also {measured}: how many nuclei, how pale, how much open space"""
    summarise: Annotated[str | None, Names.COMMAND] = None
    """command that reads a slide's {caption} (a report) on stdin and writes a shorter one on stdout"""
    split: Split = Split()
    max_bad_slides: Natural = 0
    """slides that may be left out because they can't be used; with more, the stage stops"""
    max_bad_tiles: Natural = Field(0, description="pictures of sets that may be left out because they can't be used")
    max_slide_gpx: float = Field(40.0, gt=0, description="larger slides are refused, in gigapixels")

    def at_scales(self, tiles: TileSet) -> list[Tile]:
        """The section as it is for each scale that a set is cut at; the first scale's tiles have the set's own ids."""
        scales = tiles.scales or (self.mpp, *self.more_mpp)
        return [self.model_copy(update={"mpp": mpp, "more_mpp": ()}) for mpp in scales]

    @property
    def quoted(self) -> tuple[str, ...]:
        """The fields that captions quote."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.caption) if name is not None)

    @property
    def stated_in(self) -> str:
        """Where faults of what is stated of slides and tiles are."""
        return self.manifest or "params.yaml, tile.sets"

    @model_validator(mode="after")
    def _sets(self):
        if self.manifest is None and not self.sets:
            raise ValueError("manifest is null, and sets names none: there are no tiles. State one of them")
        if not self.sets:
            return self
        names = [each.id.casefold() for each in self.sets]
        if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
            raise ValueError(f"sets names '{repeated[0]}' twice: give each set a name of its own")
        if self.split.group == "region":
            raise ValueError("split.group: region divides slides, and tiles of sets lie on none: set patient or slide")
        if self.manifest is None and self.labels.source in ("polygons", "spots"):
            raise ValueError(
                f"labels.source is {self.labels.source}, which is of slides: of sets it is slide, raster or none"
            )
        return self

    @model_validator(mode="after")
    def _has_spots_for_masks(self):
        if self.masks.source != "spots":
            return self
        if self.labels.source != "spots" or self.sets:
            raise ValueError("masks.source: spots needs labels.source: spots, which is of slides: state no sets")
        if both := {*STAINED} & {*self.labels.classes}:
            raise ValueError(f"masks.source: spots finds {sorted(both)[0]} by stain, and labels.classes has it too")
        if unknown := [name for name in self.masks.classes if name not in (*self.labels.classes, *STAINED)]:
            raise ValueError(f"masks.classes names {unknown[0]!r}, which is no label of spots (labels.classes)")
        return self

    @model_validator(mode="after")
    def _is_repaired_as_it_is(self):
        if self.repair.is_on and self.more_mpp:
            raise ValueError("repair is of tiles at tile.mpp, which the model knows: leave repair or more_mpp out")
        if self.repair.is_on and (self.stain != "none" or self.masks.by_stain):
            told = f"stain: {self.stain}" if self.stain != "none" else f"masks.source: {self.masks.source}"
            raise ValueError(
                f"repair makes pixels, and tile.{told} would read those under the pen: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _scales_differ(self):
        names = [f"{mpp:g}" for mpp in (self.mpp, *self.more_mpp)]  # as the tiles' ids have them
        if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
            raise ValueError(f"more_mpp names {repeated[0]} twice, or it is tile.mpp: name each scale once")
        return self

    @model_validator(mode="after")
    def _measured(self):
        if not all(self.quoted):
            raise ValueError("caption quotes a field without a name: write {label}, and {{ for a brace")
        for _, name, form, conversion in Formatter().parse(self.caption):
            if name and (name.isdigit() or {*name} & {*".["}):
                raise ValueError(f"caption quotes {{{name}}}, which names no field: write {{label}}")
            if form or conversion:
                raise ValueError(
                    f"caption quotes {name} in a format of its own, and fields are words: write {{{name}}}"
                )
        if "{measured}" in self.caption and not self.masks.by_stain:
            raise ValueError("caption quotes {measured}, which is found by stain: see masks.source")
        return self
