"""The Python door, on the packaged model."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import histoloom
from histoloom.backbones.int8 import has_int8
from histoloom.cli.main import cli
from histoloom.config import Sample
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tiles

pytestmark = pytest.mark.long

FEW = Sample(steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def model():
    return histoloom.load("histoloom-base", device="cpu")


def pixels(samples) -> list[bytes]:
    return [image.tobytes() for image in samples.images]


def test_a_model_says_what_it_can_be_told(model):
    assert model.conditions == ("magnification", "cohort", "mask", "image", "text", "label", "rna")
    assert model.labels == ("cancer", "immune", "other")
    assert model.mask_classes == ("nucleus", "clear") and (model.tile_px, model.mpp) == (128, 0.69)


def test_a_tile_is_its_seed_s_and_number_s_whatever_n_is(model):
    many = model.sample(9, seed=3, label="cancer", settings=FEW)
    assert [image.size for image in many.images] == [(128, 128)] * 9 and len(set(pixels(many))) == 9
    assert pixels(model.sample(1, seed=3, label="cancer", settings=FEW)) == pixels(many)[:1]
    assert many.rows["label"].tolist() == ["cancer"] * 9 and many.rows["caption"].isna().all()
    assert len(set(many.rows["seed"])) == 9 and set(many.rows["mpp"]) == {0.69}


def test_nuclei_lie_where_the_mask_has_them(model, tmp_path):
    ids = np.zeros((128, 128), np.uint8)
    ids[:, :64] = 1
    Image.fromarray(ids).save(tmp_path / "mask.png")
    grey = [
        np.stack([np.asarray(image.convert("L"), float) for image in model.sample(2, mask=mask, text="H&E").images])
        for mask in (ids, ids[:, ::-1], tmp_path / "mask.png")
    ]
    assert (grey[0] == grey[2]).all(), "a file is as its array"
    left, right = ([g[:, :, half].mean() for g in grey[:2]] for half in (slice(0, 56), slice(72, 128)))
    assert left[0] + 20 < right[0] and right[1] + 20 < left[1], "nuclei are darker"


def test_a_tile_is_made_like_another_at_the_scale_that_is_asked_for(model, tmp_path):
    dark, pale = np.full((128, 128, 3), (90, 40, 120), np.uint8), np.full((128, 128, 3), (240, 225, 235), np.uint8)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    made = [
        model.sample(2, like=like, mpp=0.5, settings=FEW) for like in (dark, tmp_path / "dark.png", pale, [dark, pale])
    ]
    assert pixels(made[0]) == pixels(made[1]), "a file is as its array"
    assert pixels(made[3]) == [pixels(made[0])[0], pixels(made[2])[1]], "each tile has its own"
    grey = [np.mean([np.asarray(image.convert("L")) for image in samples.images]) for samples in made[:3]]
    assert grey[0] + 10 < grey[2] and set(made[0].rows["mpp"]) == {0.5}
    assert pixels(model.sample(2, mpp=0.25, settings=FEW)) != pixels(model.sample(2, mpp=1.0, settings=FEW))


def test_a_mask_of_a_whole_multiple_or_fraction_is_resized_and_said(model, capsys):
    ids = np.zeros((64, 64), np.uint8)
    ids[:32], ids[40:50, 40:50] = 1, 2
    twice, four = (ids.repeat(k, 0).repeat(k, 1) for k in (2, 4))
    made = [pixels(model.sample(2, mask=mask, settings=FEW)) for mask in (twice, ids, four, [ids, four])]
    assert made[0] == made[1] == made[2] == made[3]
    said = capsys.readouterr().err
    assert said.count("64 x 64 px, taken as 128 x 128 px") == 2 and said.count("256 x 256 px, taken as") == 2


def test_a_cohort_changes_a_tile_and_a_scale_that_nobody_learnt_is_said(model, capsys):
    made = [model.sample(1, cohort=cohort, settings=FEW) for cohort in (None, {"dataset": "her2st"})]
    assert pixels(made[0]) != pixels(made[1])
    assert made[1].rows["cohort"].tolist() == ['{"dataset": "her2st"}'] and model.cohorts[1] == "dataset=her2st"
    assert "outside" not in capsys.readouterr().err
    model.sample(1, mpp=5.0, settings=FEW)
    assert "5 µm/px lies outside what the model learnt (0.25, 0.35, 0.5, 0.69, 1)" in capsys.readouterr().err


def test_a_variation_of_a_tile_is_nearer_to_it_the_less_noise_it_got(model):
    own = model.sample(2, seed=5, settings=Sample(steps=4, guidance=1.0)).array
    far = [np.abs(model.vary(own, of, settings=Sample(steps=10)).array.astype(int) - own).mean() for of in (0.1, 0.7)]
    assert 0 < far[0] < 0.7 * far[1]
    varied = model.vary([own[0], Image.fromarray(own[1])], 0.3, seed=2, label="cancer", settings=Sample(steps=10))
    assert varied.rows["input"].tolist() == [0, 1] and set(varied.rows["strength"]) == {0.3}
    again = model.vary(own[:1], 0.3, seed=2, label="cancer", settings=Sample(steps=10))
    assert pixels(again) == pixels(varied)[:1]
    for strength, said in ((1.0, "between 0 and 1"), (0.97, "leave nothing of a tile")):
        with pytest.raises(HistoloomError, match=said):
            model.vary(own, strength, settings=Sample(steps=10))


def test_a_slide_is_woven_to_an_array_and_to_a_file(tmp_path):
    few = histoloom.load("histoloom-base", device="cpu", few_steps=True)
    ids = np.zeros((144, 200), np.uint8)
    ids[:, :96] = 1
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    slide = few.weave(200, 144, seed=3, mask=ids, mpp=0.5, folder=tmp_path / "work")
    assert torch.get_num_threads() == 2, "the caller's threads are as they were"
    torch.set_num_threads(threads)
    shown = slide.pixels
    assert (
        shown.shape == (144, 200, 3) and slide.mpp == 0.5 and (slide.read(190, 140, 99, 99) == shown[140:, 190:]).all()
    )
    assert shown[:, :80].mean() + 20 < shown[:, 112:].mean(), "nuclei are darker"
    with openslide.OpenSlide(slide.save(tmp_path / "out/slide.tif")) as opened:
        assert opened.dimensions == (200, 144) and float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        written = np.asarray(opened.read_region((0, 0), 0, (200, 144)).convert("RGB")).astype(int)
    assert np.abs(written - shown).mean() < 5
    with pytest.raises(HistoloomError, match="there already"):
        slide.save(tmp_path / "out/slide.tif")
    Image.fromarray(ids).save(tmp_path / "mask.png")
    begun = time.monotonic()
    again = few.weave(200, 144, seed=3, mask=ids, mpp=0.5, folder=tmp_path / "work")
    assert (again.pixels == shown).all() and time.monotonic() - begun < 5, "what is done is kept"
    of_file = few.weave(200, 144, seed=3, mask=tmp_path / "mask.png", mpp=0.5)
    assert (of_file.pixels == shown).all()
    place = of_file.folder
    del of_file
    assert not place.exists(), "a temporary folder goes with its slide"


@pytest.mark.parametrize(
    "given, said",
    [
        ({"width_px": 100}, "100 x 128 px is smaller than the model's tile of 128 px"),
        ({"label": "keratin"}, "not one that the model knows"),
        ({"mask": np.zeros((9, 9), np.uint8)}, "Give class ids, 128 rows of 128"),
        ({"mask": np.full((128, 128), 9)}, "class id 9"),
        ({"mask": "nowhere.png"}, "the file is missing"),
        ({"cohort": {"site": "a"}}, "not learnt 'site=a'"),
    ],
)
def test_what_a_slide_can_t_be_told_is_an_error(model, given, said):
    with pytest.raises(HistoloomError, match=said):
        model.weave(**{"width_px": 128, "height_px": 128} | given)


def test_a_model_without_pictures_predicts_nothing(model):
    with pytest.raises(HistoloomError, match="isn't given pictures"):
        model.predict(np.zeros((1, 128, 128, 3), np.uint8))


def test_a_model_s_repr_is_short(model):
    assert len(repr(model)) < 300 and "histoloom-base" in repr(model)


def test_the_way_between_two_tiles_goes_in_steps_of_their_codes(model):
    ends = [np.full((128, 128, 3), colour, np.uint8) for colour in ((90, 40, 120), (240, 225, 235))]
    way = model.interpolate(*ends, n=3, settings=FEW)
    alone = model.interpolate(*ends, n=2, settings=FEW)
    assert [pixels(way)[0], pixels(way)[2]] == pixels(alone), "its ends don't depend on how many lie between"
    grey = [np.asarray(image.convert("L")).mean() for image in way.images]
    assert grey[0] < grey[1] < grey[2] and len({*way.rows["seed"]}) == 1
    with pytest.raises(HistoloomError, match="has two ends"):
        model.interpolate(*ends, n=1)


def test_a_package_s_few_steps_are_taken_and_no_others():
    few = histoloom.load("histoloom-base", device="cpu", few_steps=True)
    assert (few.settings.scheduler, few.settings.steps, few.settings.guidance) == ("ddim", 4, 1.0)
    assert len(set(pixels(few.sample(2)))) == 2
    with pytest.raises(HistoloomError, match="steps: 4, guidance: 1"):
        few.sample(settings=FEW)


def test_the_command_writes_tiles_their_sheet_and_their_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["sample", "out", "-n", "3", "--label", "cancer"]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    rows = pd.read_csv("out/rows.csv")
    assert rows["file"].tolist() == ["tile-0000.png", "tile-0001.png", "tile-0002.png"]
    assert set(rows["label"]) == {"cancer"} and set(rows["steps"]) == {4} and set(rows["run_seed"]) == {0}
    assert set(rows["histoloom"]) == {histoloom.__version__} and rows["generator_sha256"].str.len().eq(64).all()
    made = histoloom.load("histoloom-base", device="cpu", few_steps=True).sample(3, label="cancer")
    assert [Image.open(f"out/{name}").tobytes() for name in rows["file"]] == pixels(made)
    assert Path("out/sheet.png").is_file()
    again = CliRunner().invoke(cli, asked)
    assert again.exit_code == 1 and sorted(path.name for path in Path().iterdir()) == ["out"]


@pytest.mark.parametrize("option", ["--like", "--mask"])
def test_the_command_refuses_a_picture_of_another_size_before_torch_is_loaded(tmp_path, option):
    Image.new("RGB" if option == "--like" else "L", (100, 60)).save(tmp_path / "small.png")
    code = (
        "import sys; from click.testing import CliRunner; from histoloom.cli.main import cli\n"
        f"done = CliRunner().invoke(cli, ['sample', 'out', {option!r}, 'small.png'])\n"
        "print(done.exit_code, 'torch' in sys.modules, done.output)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith("1 False") and "small.png is 100 x 60 px" in said and "128 x 128 px" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given, said",
    [
        ({"like": np.zeros((64, 96, 3), np.uint8)}, "is 96 x 64 px, and the model's tiles are 128 x 128 px"),
        ({"like": np.zeros((128, 128, 3))}, "The tile is float64"),
        ({"like": Image.new("L", (128, 128))}, "is of mode L"),
        ({"like": Image.new("I;16", (128, 128))}, "is of mode I;16"),
        ({"like": Image.new("RGBA", (128, 128), (9, 9, 9, 128))}, "is of mode RGBA"),
        ({"like": "nowhere.png"}, "no picture at nowhere.png"),
        ({"mpp": 0.0}, "state the scale"),
        ({"label": "keratin"}, "not one that the model knows: cancer, immune, other"),
        ({"mask": np.zeros((100, 100), int)}, "is 100 x 100 px. Give a mask of 128 x 128 px"),
        ({"mask": np.zeros((128, 256), int)}, "is 256 x 128 px"),
        ({"mask": np.zeros((128, 128, 3), np.uint8)}, "has 3 channels"),
        ({"mask": np.full((128, 128), 255)}, "write 1 in place of 255"),
        ({"mask": np.full((128, 128), 7)}, "0 background, 1 nucleus, 2 clear"),
        ({"mask": np.full((128, 128), -1)}, "0 background, 1 nucleus, 2 clear"),
        ({"mask": np.zeros((128, 128))}, "a whole number"),
        ({"mask": "nowhere.png"}, "no picture at nowhere.png"),
        ({"text": ["one", "two", "three"], "n": 2}, "3 values of text for 2 tiles"),
        ({"cohort": {"site": "a"}}, "not learnt 'site=a'. It knows dataset=camelyon16"),
        ({"settings": Sample(steps=1001)}, "1001 steps are more than the model's 1000"),
        ({"n": 0}, "ask for one tile at least"),
    ],
)
def test_what_a_model_can_t_be_told_is_an_error(model, given, said):
    with pytest.raises(HistoloomError, match=said):
        model.sample(**given)


def test_a_model_that_isn_t_there_names_those_that_are(tmp_path):
    with pytest.raises(HistoloomError, match=r"no model at 'nothing'.*histoloom-base"):
        histoloom.load("nothing")
    with pytest.raises(HistoloomError, match="no model at"):
        histoloom.load(tmp_path)


def test_a_store_gives_a_table_and_pictures(tmp_path):
    images = tiles(3)
    make_part(tmp_path / "store", "slide", tile_rows(3), images)
    store = histoloom.open_store(tmp_path / "store")
    assert (store.read(store.rows()) == images).all() and store.rows()["label"].tolist() == ["tumour"] * 3
    with pytest.raises(HistoloomError, match="no tile store"):
        histoloom.open_store(tmp_path / "none")


def test_importing_does_no_work():
    code = "import sys, histoloom; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(hasattr(histoloom, name) for name in histoloom.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        histoloom.lod  # noqa: B018


@pytest.mark.skipif(not has_int8(), reason="this CPU does not multiply 8-bit integers itself")
def test_a_model_in_integers_makes_nearly_the_same_tiles(model):
    fast = histoloom.load("histoloom-base", device="cpu", precision="int8")
    assert fast.settings.precision == "int8" and model.settings.precision == "fp32"
    few = Sample(steps=2)
    first, second = (of.sample(2, seed=3, label="cancer", settings=few).array.astype(int) for of in (model, fast))
    assert 0 < np.abs(first - second).mean() < 3
    with pytest.raises(HistoloomError, match="load"):
        model.sample(1, settings=Sample(precision="int8"))
