"""Masks of a whole slide: as the picture shows them, without seams, joined over bands, gone on with after a break."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import histoloom
from histoloom.cli.main import cli
from histoloom.data.lineage import Lineage
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError
from histoloom.learners import slide as of_slide
from histoloom.learners import slide_files
from histoloom.learners.kept import Kept, KeptFacts, keep, lineage_of_learner, load_kept
from histoloom.learners.learner import Learner, learner_of
from histoloom.learners.slide import predict_slide
from histoloom.slides import polygons
from histoloom.slides.open import open_slide, slide_sha256
from histoloom.slides.polygons import write_traced
from histoloom.slides.predicted import lineage_of_prediction, read_predicted, read_prediction
from tests.build import tissue_picture
from tests.learners.test_diffusion import SMALL
from tests.learners.test_learners import training_of

MPP = 0.5
DARK, PINK = (60, 30, 110), (225, 170, 200)
FACTS = KeptFacts("unet", ("nucleus",), MPP, 32)


@dataclass(frozen=True)
class ByColour(Learner):
    """A learner without a network: blue-violet pixels are nuclei. It counts what it is shown."""

    seen: list[int]

    @classmethod
    def fit(cls, images, truth, training):
        return cls([])

    def predict(self, images, ids=()):
        return self.chances(images).argmax(1).astype(np.uint8)

    def chances(self, images):
        self.seen.append(len(images))
        dark = (images[..., 0] < 140).astype(np.float32)
        return np.stack([1 - dark, dark], 1)


def picture(height: int = 150, width: int = 214) -> tuple[np.ndarray, np.ndarray]:
    """Pink tissue with dark squares, and their mask."""
    mask = np.zeros((height, width), np.uint8)
    for y, x in np.random.default_rng(1).integers(4, (height - 16, width - 16), (14, 2)):
        mask[y : y + 9, x : x + 9] = 1
    noise = np.random.default_rng(2).normal(0, 4, (height, width, 3))
    return np.clip(np.array([PINK, DARK])[mask] + noise, 0, 255).astype(np.uint8), mask


@pytest.fixture
def slide(tmp_path) -> Path:
    Image.fromarray(picture()[0]).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def predicted(slide: Path, kept: Kept, model: Path, out: Path, mpp: float = MPP):
    out.mkdir(exist_ok=True)
    with open_slide(slide, mpp) as opened:
        return predict_slide(opened, kept, model, out)


def written(out: Path, name: str = "mask") -> np.ndarray:
    import tifffile

    return tifffile.imread(out / f"{name}.tif", level=0)


def test_masks_lie_where_the_slide_shows_them_and_pixels_are_sure(slide, tmp_path):
    found = predicted(slide, Kept(ByColour([]), FACTS), slide.parent, tmp_path / "out")
    _, mask = picture()
    assert (found.height, found.width) == mask.shape and (written(tmp_path / "out") == mask).all()
    assert (written(tmp_path / "out", "certainty") == 255).all()
    features = json.loads((tmp_path / "out/mask.geojson").read_text())["features"]
    areas = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert sum(area.area for area in areas) == mask.sum() and found.regions == {"nucleus": len(areas)}
    assert {feature["properties"]["classification"]["name"] for feature in features} == {"nucleus"}
    assert "Nobody has looked" in json.loads((tmp_path / "out/prediction.json").read_text())["note"]
    assert not (tmp_path / "out/.parts").exists()


def test_polygons_are_in_the_slide_s_own_pixels(slide, tmp_path):
    facts = KeptFacts("unet", ("nucleus",), 2 * MPP, 32)
    found = predicted(slide, Kept(ByColour([]), facts), slide.parent, tmp_path / "out")
    assert (found.height, found.width) == (75, 107)
    features = json.loads((tmp_path / "out/mask.geojson").read_text())["features"]
    bounds = shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in features]).bounds
    ys, xs = np.nonzero(picture()[1])
    assert np.allclose(bounds, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), atol=2)


def test_a_break_costs_the_rows_in_flight(slide, tmp_path, monkeypatch):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("a")
    whole = ByColour([])
    predicted(slide, Kept(whole, FACTS), model, tmp_path / "whole")

    @dataclass(frozen=True)
    class Breaks(ByColour):
        def chances(self, images):
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().chances(images)

    with pytest.raises(KeyboardInterrupt):
        predicted(slide, Kept(Breaks([]), FACTS), model, tmp_path / "broken")
    again = ByColour([])
    predicted(slide, Kept(again, FACTS), model, tmp_path / "broken")
    assert len(again.seen) < len(whole.seen)
    for name in ("mask.tif", "certainty.tif", "mask.geojson"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_a_damaged_state_begins_anew(slide, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    real, begun = of_slide._begun, []

    def damaged(parts: Path) -> int:
        (parts / "state.json").write_text("{")
        begun.append(real(parts))
        return begun[-1]

    monkeypatch.setattr(of_slide, "_begun", damaged)
    predicted(slide, Kept(ByColour([]), FACTS), tmp_path / "model", tmp_path / "out")
    assert begun == [0] and (written(tmp_path / "out") == picture()[1]).all()


def test_the_same_slide_at_another_scale_begins_anew(slide, tmp_path):
    @dataclass(frozen=True)
    class Breaks(ByColour):
        def chances(self, images):
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().chances(images)

    (tmp_path / "model").mkdir()
    with pytest.raises(KeyboardInterrupt):
        predicted(slide, Kept(Breaks([]), FACTS), tmp_path / "model", tmp_path / "out")
    predicted(slide, Kept(ByColour([]), FACTS), tmp_path / "model", tmp_path / "out", mpp=0.4)
    predicted(slide, Kept(ByColour([]), FACTS), tmp_path / "model", tmp_path / "whole", mpp=0.4)
    assert (written(tmp_path / "out") == written(tmp_path / "whole")).all()


def test_what_another_model_begins_never_stands_under_what_was_said_before(slide, tmp_path, monkeypatch):
    """Broken off while the second model's masks are written, the first one's are still whole; then the second one's are."""
    models = []
    for name in ("first", "second"):
        models.append(tmp_path / name)
        models[-1].mkdir()
        (models[-1] / "weights").write_text(name)
    out = tmp_path / "out"
    predicted(slide, Kept(ByColour([]), FACTS), models[0], out)
    said, real = (out / "prediction.json").read_text(), slide_files.write_traced
    monkeypatch.setattr(slide_files, "write_traced", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predicted(slide, Kept(ByColour([]), FACTS), models[1], out)
    facts = read_prediction(out / "prediction.json")
    assert (out / "prediction.json").read_text() == said
    read_predicted(out / "prediction.json", ("nucleus",), 0.5, facts.slide_sha256, MPP)
    monkeypatch.setattr(slide_files, "write_traced", real)
    predicted(slide, Kept(ByColour([]), FACTS), models[1], out)
    assert json.loads((out / "prediction.json").read_text())["model_sha256"] != json.loads(said)["model_sha256"]


def test_a_learner_is_shown_the_stain_that_its_tiles_were_normalised_to(slide, tmp_path):
    @dataclass(frozen=True)
    class Looks(ByColour):
        def chances(self, images):
            self.seen.append(images.mean())
            return super().chances(images)

    Image.fromarray(tissue_picture(160, 160, 1)).save(slide)
    plain, normalised = Looks([]), Looks([])
    predicted(slide, Kept(plain, FACTS), slide.parent, tmp_path / "plain")
    predicted(slide, Kept(normalised, replace(FACTS, stain="reinhard")), slide.parent, tmp_path / "normalised")
    assert abs(np.mean(plain.seen[::2]) - np.mean(normalised.seen[::2])) > 5


def test_glass_is_told_and_nobody_is_sure_of_it(tmp_path):
    Image.fromarray(np.full((80, 90, 3), 245, np.uint8)).save(tmp_path / "glass.png")
    (tmp_path / "model").mkdir()
    found = predicted(tmp_path / "glass.png", Kept(ByColour([]), FACTS), tmp_path / "model", tmp_path / "out")
    assert not found.has_tissue and found.regions == {"nucleus": 0}
    assert not written(tmp_path / "out", "certainty").any()


def test_what_was_not_predicted_here_is_not_overwritten(slide, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mask.tif").write_text("mine")
    with pytest.raises(HistoloomError, match="would be overwritten"):
        predicted(slide, Kept(ByColour([]), FACTS), slide.parent, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with open_slide(slide, MPP) as opened, pytest.raises(HistoloomError, match="Nothing can be written"):
        predict_slide(opened, Kept(ByColour([]), FACTS), slide.parent, tmp_path / "file/out")


def test_a_damaged_learner_is_told(tmp_path):
    for text in ("{}", "[]", '{"name": "unet", "classes": ["a"], "mpp": 1, "px": 8}'):
        (tmp_path / "learner.json").write_text(text)
        with pytest.raises(HistoloomError):
            load_kept(tmp_path)


def test_what_is_too_coarse_is_refused(slide, tmp_path):
    with pytest.raises(HistoloomError, match="too coarse"):
        predicted(slide, Kept(ByColour([]), FACTS), slide.parent, tmp_path / "out", mpp=1.0)


def test_a_folder_without_a_learner_says_what_to_name(tmp_path):
    with pytest.raises(HistoloomError, match="holds no learner of masks"):
        load_kept(tmp_path)


def test_the_segmenter_of_a_study_s_filters_is_found_with_what_it_saw(slide, tmp_path):
    images, masks = np.stack([picture()[0][:32, :32]] * 4), np.stack([picture()[1][:32, :32]] * 4)
    learner = learner_of("unet", "mask").fit(images, masks, training_of("unet", "mask", tmp_path / "work", steps=2))
    filters = tmp_path / "study/models/filters"
    (filters / "mask").mkdir(parents=True)
    keep(Kept(learner, KeptFacts("unet", ("red", "blue"), MPP, 32)), filters / "mask")
    saw = Lineage(("p1",), ("s1",))
    saw.save(filters)
    for place in (filters, filters / "mask"):
        assert load_kept(place).facts.classes == ("red", "blue") and lineage_of_learner(place) == saw
        assert (histoloom.load_learner(place).predict(images) == learner.predict(images)).all()
    predicted(slide, load_kept(filters), filters, tmp_path / "out")
    facts = read_prediction(tmp_path / "out/prediction.json")
    assert lineage_of_prediction(tmp_path / "out/prediction.json") == saw and facts.slide_sha256 == slide_sha256(slide)
    mask = read_predicted(tmp_path / "out/prediction.json", ("blue",), 0.0, facts.slide_sha256, MPP)
    ids, sure = written(tmp_path / "out"), written(tmp_path / "out", "certainty")
    box = PixelBox(0, 0, picture()[0].shape[1], picture()[0].shape[0])
    assert np.array_equal(mask.nearest(box, 1.0), np.where(sure > 0, (ids == 2).astype(int), UNKNOWN))
    (filters / "lineage.json").unlink()
    assert lineage_of_learner(filters).unknown == (str(filters / "mask"),)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 30), st.integers(1, 9))
def test_regions_that_reach_over_bands_are_joined(tmp_path_factory, seed, height, width, band):
    raster = np.random.default_rng(seed).choice([0, 1, 2], (height, width), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    path = tmp_path_factory.mktemp("bands") / "a.geojson"

    def read(box: PixelBox[int]) -> np.ndarray:
        return raster[box.top : box.bottom, box.left : box.right, None]

    before = polygons._BAND_PX
    polygons._BAND_PX = band
    try:
        counts = write_traced(path, read, raster.shape, ("a", "b"))
    finally:
        polygons._BAND_PX = before
    whole = write_traced(path.with_name("whole.geojson"), read, raster.shape, ("a", "b"))
    for name, number in (("a", 1), ("b", 2)):
        area, other = (
            shapely.union_all(
                [
                    shapely.geometry.shape(f["geometry"])
                    for f in json.loads(place.read_text())["features"]
                    if f["properties"]["classification"]["name"] == name
                ]
            )
            for place in (path, path.with_name("whole.geojson"))
        )
        assert area.equals(other) and area.area == (raster == number).sum()
    assert all(counts[name] <= max(1, 2 * whole[name]) for name in counts)


@pytest.mark.long
@pytest.mark.parametrize("name", ["unet", "diffusion"])
def test_a_kept_learner_looks_at_a_slide_by_the_command(name, slide, tmp_path):
    shown, mask = picture(160, 224)
    cut = [np.s_[y : y + 32, x : x + 32] for y in range(0, 160, 32) for x in range(0, 224, 32)]
    images, masks = np.stack([shown[c] for c in cut]), np.stack([mask[c] for c in cut])
    told = {"told": SMALL} if name == "diffusion" else {}
    training = training_of(name, "mask", tmp_path / "work", rate=5e-3, **told)
    learner = learner_of(name, "mask").fit(images, masks, training)
    kept = tmp_path / "kept"
    kept.mkdir()
    keep(Kept(learner, KeptFacts(name, ("red", "blue"), MPP, 32)), kept)
    done = CliRunner().invoke(
        cli, ["predict", str(slide), str(tmp_path / "out"), "--model", str(kept), "--slide-mpp", str(MPP)]
    )
    assert done.exit_code == 0, done.output
    found = written(tmp_path / "out")
    assert 2 * ((found == 1) & (picture()[1] == 1)).sum() / ((found == 1).sum() + picture()[1].sum()) > 0.8
    shutil.rmtree(tmp_path / "out")
