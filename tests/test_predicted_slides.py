"""Whole slides by `histoloom predict`: restored, changed, translated and repaired, or looked at for masks, and said to be made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from click.testing import CliRunner, Result
from PIL import Image

import histoloom
from histoloom.cli.main import cli
from histoloom.config import load_params
from histoloom.errors import HistoloomError
from histoloom.sampling import predicted_slide
from histoloom.slides.open import open_slide
from histoloom.slides.slide import BadSlide
from histoloom.slides.tiler import check_source
from histoloom.slides.woven import NOTE
from tests.build import box_ring, feature, tissue_picture, write_geojson
from tests.test_programs_study import TRAINED, make, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]
HEIGHT, WIDTH, GLASS = 70, 101, 40
"""Of the slide, px; and its last columns, which are glass."""


def _trained(folder: Path, patch: pytest.MonkeyPatch, training: dict, **sections) -> Path:
    patch.chdir(folder)
    make(folder, training, [{"name": "x", "tiles": 2, "purpose": "predict"}], **sections)
    run(*TRAINED)
    return folder / "models"


@pytest.fixture(scope="module")
def restorer(tmp_path_factory) -> Path:
    """A model that is given the slide, and takes noise away a little."""
    with pytest.MonkeyPatch.context() as patch:
        training = {
            "target": "pixels",
            "conditions": ["picture"],
            "steps": 80,
            "learning_rate": 2e-3,
            "ema_decay": 0.9,
            "drop": {"picture": 0},
        }
        folder = tmp_path_factory.mktemp("restorer")
        return _trained(folder, patch, training, train_encoders={"picture": {"noise": 20}})  # fmt: skip


@pytest.fixture(scope="module")
def changer(tmp_path_factory) -> Path:
    """A model of two sites."""
    with pytest.MonkeyPatch.context() as patch:
        training = {"target": "pixels", "conditions": ["cohort"], "steps": 80, "learning_rate": 2e-3, "ema_decay": 0.9}
        return _trained(tmp_path_factory.mktemp("changer"), patch, training)


@pytest.fixture
def slide(tmp_path) -> Path:
    """Tissue, and glass beside it."""
    shown = np.full((HEIGHT, WIDTH, 3), 243, np.uint8)
    shown[:, : WIDTH - GLASS] = tissue_picture(WIDTH - GLASS, HEIGHT, seed=9)
    Image.fromarray(shown).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def _predict(slide: Path, out: Path, model: Path, *options: str) -> Result:
    named = ["predict", str(slide), str(out), "--model", str(model), "--slide-mpp", "0.5", *options]
    return CliRunner().invoke(cli, named)


def _pixels(path: Path) -> np.ndarray:
    return tifffile.imread(path, level=0)


def test_a_slide_is_restored_and_says_that_no_scanner_saw_it(restorer, slide, tmp_path):
    done = _predict(slide, tmp_path / "out", restorer, "--samples", "3")
    assert done.exit_code == 0, done.output
    out, scanned = tmp_path / "out", np.asarray(Image.open(slide))
    restored = _pixels(out / "slide.tif")
    assert restored.shape == scanned.shape
    with openslide.OpenSlide(out / "slide.tif") as opened:
        assert opened.properties["tiff.ImageDescription"] == NOTE
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-3)
    assert NOTE in (out / "viewer.html").read_text()
    facts = json.loads((out / "canvas.json").read_text())
    assert (
        facts["note"] == NOTE
        and {"p0", "p1", "p2"} <= {*facts["lineage"]["groups"]}
        and 0.3 < facts["made_fraction"] < 1
    )
    tissue = np.s_[:, : WIDTH - GLASS]
    assert np.abs(restored[tissue].astype(int) - scanned[tissue]).mean() < 40  # the tissue is that of the slide
    with open_slide(out / "slide.tif") as made, pytest.raises(BadSlide, match="a model made it"):
        check_source(made, load_params(restorer.parent / "params.yaml").tile)
    deviation = _pixels(out / "deviation.tif")
    assert deviation[tissue].mean() > 0.5 and not deviation[:, -4:].any()
    assert not (out / ".parts").exists()


def test_broken_off_it_is_gone_on_with_and_comes_out_the_same(restorer, slide, tmp_path, monkeypatch):
    assert _predict(slide, tmp_path / "whole", restorer, "--samples", "2").exit_code == 0
    real, wove = predicted_slide.woven, []

    def breaks(stated, *rest):
        if len(wove) == 1:
            raise KeyboardInterrupt
        wove.append(stated.name)
        return real(stated, *rest)

    monkeypatch.setattr(predicted_slide, "woven", breaks)
    assert _predict(slide, tmp_path / "out", restorer, "--samples", "2").exit_code != 0
    assert not (tmp_path / "out/slide.tif").exists() and (tmp_path / "out/.parts").exists()
    monkeypatch.setattr(predicted_slide, "woven", real)
    assert _predict(slide, tmp_path / "out", restorer, "--samples", "2").exit_code == 0
    for name in ("slide.tif", "deviation.tif", "made.geojson"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_regions_are_made_anew_and_all_else_stays_to_the_bit(changer, slide, tmp_path):
    write_geojson(tmp_path / "fold.json", feature("fold", box_ring(20, 16, 44, 48)))
    done = _predict(slide, tmp_path / "out", changer, "--regions", str(tmp_path / "fold.json"))
    assert done.exit_code == 0, done.output
    repaired, scanned = _pixels(tmp_path / "out/slide.tif"), np.asarray(Image.open(slide))
    changed = (repaired != scanned).any(-1)
    inside = np.zeros(changed.shape, bool)
    inside[16:48, 20:44] = True
    assert changed[inside].mean() > 0.9 and not changed[~inside].any()
    (made,) = json.loads((tmp_path / "out/made.geojson").read_text())["features"]
    assert made["properties"]["classification"]["name"] == "Made by a model"


def test_regions_that_lie_apart_are_woven_apart_and_the_slide_between_is_not(changer, tmp_path):
    height, width = 40, 400
    Image.fromarray(tissue_picture(width, height, seed=9)).save(tmp_path / "long.png")
    write_geojson(
        tmp_path / "two.json", feature("a", box_ring(8, 8, 24, 30)), feature("b", box_ring(362.5, 9.5, 380.5, 27))
    )
    out, options = tmp_path / "out", ("--regions", str(tmp_path / "two.json"), "--samples", "2")
    with pytest.MonkeyPatch.context() as patch:
        laid = []
        real = predicted_slide.woven

        def noted(stated, *rest):
            laid.append((stated.name, stated.width_px))
            return real(stated, *rest)

        patch.setattr(predicted_slide, "woven", noted)
        assert _predict(tmp_path / "long.png", out, changer, *options).exit_code == 0
    assert len(laid) == 4 and sum(side for _, side in laid) < width
    changed = (_pixels(out / "slide.tif") != np.asarray(Image.open(tmp_path / "long.png"))).any(-1)
    inside = np.zeros(changed.shape, bool)
    inside[8:30, 8:24] = inside[9:27, 362:381] = True
    assert changed[inside].mean() > 0.8 and not changed[~inside].any()
    assert not _pixels(out / "deviation.tif")[..., :][~inside].any()


@pytest.mark.parametrize(
    "options", [("--strength", "0.3"), ("--from", "site=north", "--to", "site=south")], ids=["changed", "translated"]
)
def test_a_whole_slide_is_changed_and_keeps_what_it_shows(changer, slide, tmp_path, options):
    done = _predict(slide, tmp_path / "out", changer, *options)
    assert done.exit_code == 0, done.output
    made, scanned = _pixels(tmp_path / "out/slide.tif").astype(float), np.asarray(Image.open(slide)).astype(float)
    contrast = np.abs(scanned - scanned.mean((0, 1))).mean()
    assert 0.5 < np.abs(made - scanned).mean() < 0.8 * contrast
    assert json.loads((tmp_path / "out/canvas.json").read_text())["made_fraction"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "isn't given pictures"),
        (("--strength", "0.2", "--from", "site=a", "--to", "site=b"), "Take one of"),
        (("--from", "site=north"), "go together"),
        (("--from", "north", "--to", "site=south"), "COLUMN=VALUE"),
        (("--from", "site=north", "--to", "site=moon"), "has not learnt 'site=moon'. It knows site=north, site=south"),
        (("--from", "scaner=x", "--to", "site=south"), "has not learnt 'scaner=x'"),
        (("--from", "site=north", "--from", "site=south", "--to", "site=south"), "stated twice"),
        (("--strength", "0.99"), "leave nothing of the slide"),
        (("--strength", "nan"), "lies between 0 and 1"),
        (("--strength", "0.2", "--slide-mpp", "2"), "too coarse"),
    ],
)
def test_what_can_t_be_done_is_said(changer, slide, tmp_path, options, said):
    done = _predict(slide, tmp_path / "out", changer, *options)
    assert done.exit_code != 0 and said in done.output + str(done.exception)


@pytest.mark.parametrize("name", ["slide.tif", "deviation.tif", "viewer.html"])
def test_what_was_not_made_here_is_not_overwritten(restorer, slide, tmp_path, name):
    out = tmp_path / "out"
    (out / ".parts/mine").mkdir(parents=True)
    (out / name).write_text("mine")
    (out / ".parts/thesis.txt").write_text("mine too")
    done = _predict(slide, out, restorer)
    assert "would be overwritten" in done.output + str(done.exception)
    assert (out / name).read_text() == "mine"
    (out / name).unlink()
    assert _predict(slide, out, restorer).exit_code == 0
    assert (out / ".parts/mine").is_dir() and (out / ".parts/thesis.txt").read_text() == "mine too"


def test_a_slide_is_never_written_over_itself_and_each_prediction_has_a_folder_of_its_own(restorer, slide, tmp_path):
    assert _predict(slide, tmp_path / "out", restorer).exit_code == 0
    made = tmp_path / "out/slide.tif"
    before = made.read_bytes()
    done = _predict(made, tmp_path / "out", restorer)
    assert "would be overwritten" in done.output + str(done.exception) and made.read_bytes() == before
    (tmp_path / "out/canvas.json").rename(tmp_path / "out/prediction.json")
    made.unlink(), (tmp_path / "out/viewer.html").unlink()
    for name in ("made.geojson", "thumbnail.jpg"):
        (tmp_path / "out" / name).unlink()
    done = _predict(slide, tmp_path / "out", restorer)
    assert "states another prediction" in done.output + str(done.exception)


def test_models_are_found_where_they_were_made_alone(changer, restorer, slide, tmp_path, monkeypatch):
    """By a relative path and by the study's folder; but not beside another study's params."""
    monkeypatch.chdir(restorer)
    assert _predict(slide, tmp_path / "a", Path()).exit_code == 0
    assert _predict(slide, tmp_path / "b", restorer.parent).exit_code == 0
    shutil.copytree(changer, restorer.parent / "copied")
    done = _predict(slide, tmp_path / "c", restorer.parent / "copied", "--strength", "0.3")
    assert "leave it where it was made" in done.output + str(done.exception)
    shutil.copytree(changer, restorer.parent / "several/a")
    done = _predict(slide, tmp_path / "d", restorer.parent / "several", "--strength", "0.3")
    assert "holds several models: a" in done.output + str(done.exception)


@pytest.mark.parametrize(
    ("text", "said"), [(b"\x1f\x8b", "compressed"), (None, "cover no pixel")], ids=["packed", "in degrees"]
)
def test_regions_that_are_none_are_refused(changer, slide, tmp_path, text, said):
    path = tmp_path / "regions.json"
    if text is None:
        write_geojson(path, feature("fold", box_ring(0.11, 0.52, 0.12, 0.53)))
    else:
        path.write_bytes(text)
    done = _predict(slide, tmp_path / "out", changer, "--regions", str(path))
    assert done.exit_code != 0 and said in done.output + str(done.exception)


def test_python_predicts_as_the_command_does(restorer, slide, tmp_path):
    assert _predict(slide, tmp_path / "command", restorer, "--samples", "2").exit_code == 0
    model = histoloom.load(restorer.parent, device="cpu")
    found = model.predict_slide(slide, tmp_path / "python", samples=2, slide_mpp=0.5)
    assert (found.width, found.height) == (WIDTH, HEIGHT) and (tmp_path / "python/viewer.html").is_file()
    assert (_pixels(tmp_path / "python/slide.tif") == _pixels(tmp_path / "command/slide.tif")).all()
    with pytest.raises(HistoloomError, match="leave strength out"):
        model.predict_slide(slide, tmp_path / "other", strength=0.4, slide_mpp=0.5)


def test_tiles_are_restored_in_python(restorer):
    model = histoloom.load(restorer.parent, device="cpu")
    clean = np.stack([tissue_picture(model.tile_px, model.tile_px, seed=n) for n in range(3)])
    restored = model.predict(clean, samples=2)
    assert restored.shape == clean.shape and np.abs(restored.astype(int) - clean).mean() < 40
    assert (model.predict(clean, samples=2) == restored).all()


@pytest.mark.parametrize("factor", [1, 2])
def test_masks_are_found_by_canvases_also_on_a_coarser_grid(tmp_path, monkeypatch, slide, factor):
    """A model of masks that is given the slide; smaller than a tile or larger."""
    (tmp_path / "study").mkdir()
    target = {"name": "masks"} | ({"factor": factor} if factor > 1 else {})
    training = {"target": target, "conditions": ["picture"], "steps": 60, "learning_rate": 2e-3, "ema_decay": 0.9}
    models = _trained(tmp_path / "study", monkeypatch, training)
    done = _predict(slide, tmp_path / "out", models, "--samples", "3")
    assert done.exit_code == 0, done.output
    mask, sure = (_pixels(tmp_path / "out" / name) for name in ("mask.tif", "certainty.tif"))
    assert mask.shape == (HEIGHT, WIDTH) and mask.max() <= 1
    assert {*np.unique(sure)} <= {0, 85, 170, 255} and not sure[:, -4:].any() and not mask[:, -4:].any()
    assert json.loads((tmp_path / "out/prediction.json").read_text())["learner"] == "diffusion"
    found = histoloom.load(tmp_path / "study", device="cpu").predict(tissue_picture(16, 16, seed=2)[None])
    assert found.shape == (1, 16, 16) and found.dtype == np.uint8 and found.max() <= 1
    small = tmp_path / "small.png"
    Image.fromarray(tissue_picture(40, 12, seed=3)).save(small)
    assert _predict(small, tmp_path / "small", models).exit_code == 0
    assert _pixels(tmp_path / "small/mask.tif").shape == (12, 40)
    shutil.rmtree(tmp_path / "out")
