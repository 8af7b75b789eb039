"""The section `sample_slides`: whole slides, woven as one canvas each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from histoloom.config.base import Distinct, Fraction, Natural, Offset, Positive, Section, Size, Solved
from histoloom.config.file_keys import Names
from histoloom.config.file_names import FileName


class FromImage(Section):
    """A region of a slide in the manifest that a canvas begins from."""

    slide_id: str
    """the slide"""
    x_level0_px: Offset = 0
    """the region's left border on the slide"""
    y_level0_px: Offset = 0
    """the region's upper border on the slide"""
    width_px: Positive = Field(description="of the region, at tile.mpp")
    height_px: Positive
    """of the region, at tile.mpp"""
    x_px: Natural = Field(0, description="where the region lies on the canvas")
    y_px: Natural = 0
    """where the region lies on the canvas"""
    strength: Fraction = Field(
        1.0, description="fraction of the noise schedule that is run; a smaller value changes less"
    )
    inverted: bool = False
    """begin from the noise that DDIM, run backwards under the cohort of the image's own slide, finds for the region: it is
    translated to the slide's cohort (Su et al. 2023)"""
    picture: bool = Field(
        False, description="the region is what the condition `picture` shows; its tissue is made anew under it"
    )
    keep: bool = Field(False, description="keep the region except its holes, and sample what lies around it")
    rounds: Positive = 4
    """with keep: how often each step is taken, with noise added back in between, so that new tissue fits the kept
    region (Lugmayr et al. 2022)"""
    holes: Annotated[str | None, Names.FILE] = None
    """GeoJSON polygons, in the canvas's px, that are sampled anew"""

    @model_validator(mode="after")
    def _holes_are_of_what_is_kept(self):
        if self.holes and not self.keep:
            raise ValueError("holes are made in what is kept: set keep: true")
        if self.keep and self.strength < 1:
            raise ValueError("what is made beside or in a kept region begins from noise: leave strength out")
        if self.inverted and (self.keep or self.strength < 1):
            raise ValueError("a region that is inverted is translated as a whole: leave keep and strength out")
        if self.picture and (self.keep or self.strength < 1 or self.inverted):
            raise ValueError("what is made of a picture begins from noise: leave keep, strength and inverted out")
        return self


class WovenSlide(Section):
    """One slide to weave; its pixels are at tile.mpp."""

    renamed: ClassVar[dict[str, str]] = {"field": "condition_grid", "lent_by": "source_groups"}
    name: FileName
    """the slide's folder in data/woven"""
    width_px: Positive
    """at tile.mpp"""
    height_px: Positive
    """at tile.mpp"""
    mask: Annotated[str | None, Names.FILE] = None
    """classes of tile.masks: GeoJSON polygons in the slide's px, or a raster of class ids; or generated, by the model of
    masks that stands before the last in sample.chain"""
    instances: Annotated[str | None, Names.FILE] = None
    """raster of nuclei, where a raster mask has outlines (encode.edges)"""
    outside: Literal["glass", "tissue"] | None = None
    """what lies outside the mask's classes; required with a mask"""
    label: str | None = None
    """the whole slide's label"""
    caption: str | None = None
    """the whole slide's caption"""
    rna: str | None = Field(None, description="key of an expression profile")
    genotype: str | None = Field(None, description="markers and states, as 'TP53=altered;IDH1=wt'")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to value")
    number: dict[str, float] = Field({}, description="column of train_encoders.number to value")
    condition_grid: Annotated[str | None, Names.FILE] = None
    """CSV of a coarse grid: row, col, and any of label, caption, rna, genotype, cohort.COLUMN and number.COLUMN, or
    tile_id, a tile of the store whose conditions fill what neither the row nor the slide states"""
    image: FromImage | None = None
    source_groups: tuple[str, ...] = Field((), description="split groups whose annotations the mask was made from")
    purpose: Literal["augment", "evaluate"] = "augment"
    """evaluate: held-out conditions, never emitted"""

    @field_validator("genotype")
    @classmethod
    def _is_markers_and_states(cls, text: str | None) -> str | None:
        if text and not all("=" in pair for pair in text.split(";")):
            raise ValueError("a genotype is written as 'TP53=altered;IDH1=wt'")
        return text

    @property
    def rounds(self) -> int:
        """How often each step is taken."""
        return self.image.rounds if self.image and self.image.keep else 1

    @model_validator(mode="after")
    def _image_fits(self):
        image = self.image
        if image is None:
            return self
        if image.x_px + image.width_px > self.width_px or image.y_px + image.height_px > self.height_px:
            raise ValueError(f"the image's region reaches beyond slide '{self.name}'")
        if not image.keep and image.strength == 1 and not image.inverted and not image.picture:
            how = (
                "set keep: true to make what lies around it, a strength below 1 to change its texture, inverted: true, or "
                "picture: true for a model that is given pictures"
            )
            raise ValueError(f"the image of slide '{self.name}' would change nothing: {how}")
        whole = image.keep or image.picture
        if not whole and (image.width_px, image.height_px) != (self.width_px, self.height_px):
            raise ValueError(
                f"the image of slide '{self.name}' is changed, and is smaller than the slide: what lies beside it "
                "has nothing to begin from. Make the slide as large as the region"
            )
        return self

    @model_validator(mode="after")
    def _is_inverted_without_a_mask(self):
        if self.image and self.image.inverted and self.mask:
            raise ValueError(
                f"the image of slide '{self.name}' is inverted under its own mask, which nobody states: leave mask out"
            )
        return self

    @model_validator(mode="after")
    def _what_no_class_covers_is_stated(self):
        if self.mask and self.outside is None:
            raise ValueError(
                f"slide '{self.name}' has a mask: state what lies where it names no class, outside: glass (for masks of "
                "regions of tissue) or outside: tissue (for masks of nuclei, which have stroma between them)"
            )
        return self


class SampleSlides(Solved):
    renamed: ClassVar[dict[str, str]] = {"cover": "window_layout"}
    slides: tuple[WovenSlide, ...] = ()
    """whole slides to be made (woven)"""
    window_layout: Literal["lattice", "random", "stride", "independent"] = "lattice"
    """how windows are placed; all but lattice are for comparison, on one block"""
    window_latent_px: Size | None = Field(None, description="side of a window; unstated, as in training")
    halo_latent_px: Natural | tuple[Natural, ...] | None = None
    """width of the window beyond its cell: one number, or one for each step; unstated, a sixteenth of the window"""
    block_latent_px: Size = Field(256, description="approximate side of the block that one task advances")
    batch_size: Size = Field(
        16, description="windows in a forward pass; fixed, so that results do not depend on the number of workers"
    )
    checkpoint_every: Positive = Field(5, description="steps between commits of a canvas")
    glass_rgb: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field((243, 243, 243), min_length=3, max_length=3)
    """colour of what is not tissue"""
    tile_px: Literal[256, 512] = Field(256, description="tiles of the pyramid")
    compression: Literal["jpeg", "deflate"] = "jpeg"
    """of the pyramid's tiles: jpeg loses a little, deflate nothing"""
    quality: Annotated[int, Field(ge=1, le=100)] = Field(90, description="of JPEG")
    thumbnail_px: Size = 1024
    """longer side of the small picture"""
    other_formats: Annotated[tuple[Literal["ome-tiff", "ome-zarr"], ...], Distinct] = ()
    """what each slide is also written as, beside slide.tif: slide.ome.tif, slide.ome.zarr. Pixels are the same"""

    @model_validator(mode="after")
    def _some_halo(self):
        if self.halo_latent_px == ():
            raise ValueError("halo_latent_px is an empty list: state one halo for all steps, or one a step")
        return self

    def halos(self, window: int) -> tuple[int, ...]:
        """The context around each cell at each step, latent px."""
        if self.halo_latent_px is None:
            return (max(1, window // 16),)
        return self.halo_latent_px if isinstance(self.halo_latent_px, tuple) else (self.halo_latent_px,)
