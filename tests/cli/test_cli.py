"""The command line: quick to help, careful to start, and every fault at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from ruamel.yaml import YAML

from histoloom.cli.main import cli
from histoloom.cli.recipe import merge
from histoloom.cli.reference import reference
from histoloom.config import Params, load_cluster, load_params
from histoloom.errors import HistoloomError
from tests.build import make_part, make_slide, make_study, tile_rows, tiles, tissue_picture

ROOT = Path(__file__).parents[2]


def _call(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    return done.exit_code, " ".join(done.output.split())


def test_help_needs_no_torch_and_names_every_command():
    code = (
        "import sys; from histoloom.cli.main import cli; cli(['--help'], standalone_mode=False); "
        "sys.exit(' '.join({'torch', 'dask', 'zarr', 'openslide', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    for command in ("init", "doctor", "validate", "status", "preview", "diff"):
        assert f"  {command} " in done.stdout


def test_the_doctor_examines_what_lacks_a_package(monkeypatch):
    for name in ("dask", "dask.system"):
        monkeypatch.setitem(sys.modules, name, None)
    code, said = _call("doctor")
    assert code == 1 and "import of dask halted" in said and "unknown: dask" in said


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study that `init` made over a folder of two slides."""
    folder = tmp_path_factory.mktemp("init")
    make_slide(folder / "slides/a.svs", width=64, height=64)
    make_slide(folder / "slides/deep/b.png", width=64, height=64)
    (folder / "slides/notes.txt").write_text("not a slide")
    code, said = _call("init", folder / "study", "--slides", folder / "slides")
    assert code == 0, said
    return folder / "study"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_init_makes_a_git_and_dvc_repository_with_one_clean_commit(made):
    assert _git(made, "rev-parse", "--show-toplevel") == str(made.resolve())
    assert _git(made, "rev-list", "--count", "HEAD") == "1"
    assert _git(made, "status", "--porcelain") == ""
    assert (made / ".dvc/config").is_file()
    ignored = _git(made, "check-ignore", ".histoloom/salt", ".work/x").splitlines()
    assert ignored == [".histoloom/salt", ".work/x"]


def test_a_study_s_stages_have_neither_the_demo_s_slide_nor_code_to_depend_on(made):
    stages = YAML(typ="safe").load((made / "dvc.yaml").read_text())["stages"]
    assert "fetch" not in stages and {"tile", "sample", "emit", "report"} <= set(stages)
    for stage in stages.values():
        assert stage["deps"][0] == "histoloom.version" and (made / "histoloom.version").is_file()
        assert not [d for d in stage["deps"] if str(d).startswith(("stages", "pipeline"))]
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list"], cwd=made, capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(stages)


def test_init_drafts_a_manifest_whose_patients_are_left_to_fill_in(made, monkeypatch):
    lines = (made / "manifests/slides.csv").read_text().splitlines()
    assert lines[0].startswith("slide_id,path,patient_id,") and len(lines) == 3
    assert lines[1].startswith("a,a.svs,,") and lines[2].startswith("b,deep/b.png,,")
    params = load_params(made / "params.yaml")
    assert Path(params.tile.slides_root) == made.parent / "slides"
    monkeypatch.chdir(made)
    code, said = _call("validate")
    assert code == 1 and "slides.csv, rows 2 and 3, column 'patient_id': it is empty" in said


def test_validate_says_why_a_slide_gives_no_tiles_and_what_is_left_out_of_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tissue = tissue_picture(400, 400)
    pictures = {
        "glass": np.full((128, 128, 3), 246, np.uint8),
        "small": tissue[:40, :40],
        "cut": tissue[100:290, 100:290],
    }
    for name, picture in pictures.items():
        make_slide(tmp_path / f"data/slides/{name}.svs", picture=picture)
    rows = [{"slide_id": n, "path": f"{n}.svs", "patient_id": n, "label": "tumour"} for n in pictures]
    make_study(".", rows)
    Path("cluster.yaml").write_text("workers: 0\n")
    code, said = _call("validate")
    assert code == 1 and "2 fault(s)" in said
    assert "row 2, column 'path': glass.svs: no tile has tissue enough. There is nothing but glass" in said
    assert "row 3, column 'path': small.svs: 40 x 40 px at tile.mpp 1 are smaller than a tile of 64 px" in said
    assert "note: manifests/slides.csv: Tissue at the right or lower border fills no tile" in said and "cut (" in said


def test_init_overwrites_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, said = _call("init", tmp_path)
    assert code == 1 and "is not empty. Name a new folder" in said
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_init_with_an_unknown_recipe_names_the_known_and_makes_nothing(tmp_path):
    code, said = _call("init", tmp_path / "s", "--recipe", "her3st")
    assert code == 1 and "no recipe 'her3st'" in said and "her2st" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("recipes", [
    *([p.stem] for p in sorted((ROOT / "recipes").glob("*.yaml")) if p.stem != "study"),
    ["histoloom-base", "histoloom-base-2"],
], ids=" ".join)  # fmt: skip
def test_every_recipe_makes_params_that_hold(recipes):
    yaml = YAML(typ="safe")
    params: dict = {}
    for name in ("study", *recipes):
        merge(params, yaml.load((ROOT / f"recipes/{name}.yaml").read_text()))
    Params.model_validate(params)


def test_merging_replaces_lists_merges_mappings_and_empties():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}, "c": 3}
    merge(base, {"a": {"y": [3]}, "b": {}, "c": None, "d": {"new": 1}})
    assert base == {"a": {"x": 1, "y": [3]}, "b": {}, "c": None, "d": {"new": 1}}


@pytest.fixture
def store(folder):
    images = tiles(10, 32)
    images[:5] = (200, 10, 10)
    make_part("data/tiles", "p", tile_rows(10, label=["tumour"] * 5 + ["stroma"] * 4 + [None]), images)
    return folder


@pytest.mark.parametrize(
    "options, shown", [((), "10 of 10"), (("-n", 4), "4 of 10"), (("--where", "label=tumour"), "5 of 5")]
)
def test_preview_writes_a_picture_of_a_store(store, options, shown):
    code, said = _call("preview", "data/tiles", "-o", "deep/sheet.png", *options)
    assert code == 0 and f"{shown} tiles" in said
    with Image.open("deep/sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.ndim == 3 and (pixels[:90, :90] == (200, 10, 10)).all()


@pytest.mark.parametrize(
    "options, problem",
    [
        (("--where", "colour=red"), "is not COLUMN=VALUE with a column of this store: tile_id, "),
        (("--where", "label"), "is not COLUMN=VALUE"),
        (("--where", "label=fat"), "No tile of data/tiles matches label=fat"),
    ],
)
def test_preview_of_nothing_says_why(store, options, problem):
    code, said = _call("preview", "data/tiles", *options)
    assert code == 1 and problem in said and not Path("preview.png").exists()


def test_preview_of_rows_without_pictures_names_the_store_to_ask(store):
    shutil.rmtree("data/tiles/p/images.zarr")
    code, said = _call("preview", "data/tiles")
    assert code == 1 and "--rows" in said


TILE = "tile: {mpp: 1.0, labels: {classes: [a, b]}, "
GOOD = "tile: {mpp: 1.0, labels: {classes: [a, b]}}\n"


@pytest.mark.parametrize(
    "text, faults",
    [
        (
            "tile: {mpp: -1, tile_pix: 3, labels: {classes: [a]}}\nsample: {steps: 0}\nmodle: {}\n",
            ["tile.mpp", "tile.tile_pix", "sample.steps", "modle"],
        ),
        ("tile: {labels: {}}\n", ["tile.mpp", "tile.labels.classes"]),
        ("", ["tile"]),
        ("[1, 2]", ["(top)"]),
        (GOOD + "plan: {classes: [c]}\n", ["plan.classes names ['c']"]),
        (GOOD + "train_autoencoder: {down_factor: 3}\n", ["train_autoencoder.down_factor"]),
        ("tile: {mpp: 1.0, tile_px: 30, labels: {classes: [a]}}\n", ["multiple of train_autoencoder.down_factor"]),
        ("tile: {mpp: 1.0, labels: {classes: [a]}, split: {fractions: {train: 0.5, val: 0.2}}}\n", ["add up to 1"]),
        ("tile: {mpp: 1.0, labels: {classes: [a, b, a]}}\n", ["names 'a' twice"]),
        ("tile: {mpp: 1.0, labels: {classes: [evaluate]}}\n", ["'evaluate'"]),
        (GOOD + "plan: {classes: [a, a]}\n", ["names 'a' twice"]),
        (GOOD + "evaluate: {features: inception_v3}\n", ["'inception_v3' is no feature extractor"]),
        *((f"{TILE}more_mpp: [{scales}]}}\n", ["more_mpp"]) for scales in ("1.0", "0.5, 0.5", "1.0000001")),
        *(
            (f"{TILE}caption: '{words}'}}\n", ["write {"])
            for words in ("{label:d}", "{label!r}", "{composition:.2f}", "{0}", "{label.x}", "{label[0]}")
        ),
        (TILE + "tile_px: 1000000000000}\n", ["tile.tile_px"]),
        (TILE + "caption: '{label'}\n", ["tile"]),
        (GOOD + f"seed: {2**70}\n", ["seed"]),
        (GOOD + "seed: -1\n", ["seed"]),
        (GOOD + "train_denoiser: {channels: []}\n", ["train_denoiser.channels"]),
        (GOOD + "train_denoiser: {drop: {mask: 0.2}}\n", ["train_denoiser.drop names ['mask']"]),
        (GOOD + "sample: {guidance_interval: {rna: [0, 1]}}\n", ["sample.guidance_interval names ['rna']"]),
        (GOOD + "emit: {formats: []}\n", ["emit.formats"]),
        (GOOD + "emit: {formats: [parquet, parquet]}\n", ["'parquet' twice"]),
        (GOOD + "uplift: {ratios: []}\n", ["uplift.ratios"]),
        (GOOD + "uplift: {ratios: [1, 1.0]}\n", ["1.0 twice"]),
        (GOOD + "filter: {use: [quality, quality]}\n", ["'quality' twice"]),
        ("tile: {mpp: 1.0\n", ["not valid YAML"]),
        ("a: 1\na: 2\n", ["not valid YAML"]),
    ],
)
def test_all_faults_of_params_come_at_once(tmp_path, text, faults):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(HistoloomError) as error:
        load_params(tmp_path / "params.yaml")
    assert [fault for fault in faults if fault not in str(error.value)] == []
    if "fault(s)" in str(error.value):
        assert f"{len(faults)} fault(s)" in str(error.value)


def test_missing_params_say_where_to_go_and_a_missing_cluster_is_the_default(folder):
    code, said = _call("validate")
    assert code == 1 and "params.yaml is missing" in said and "histoloom init" in said
    assert load_cluster("cluster.yaml").workers == "auto"
    Path("cluster.yaml").write_text("workers: many\nseed: 1\n")
    code, said = _call("validate")
    assert code == 1 and "workers" in said and "seed" in said and "params.yaml is missing" in said


def test_the_repository_s_own_params_hold():
    load_params(ROOT / "params.yaml")


def test_the_reference_of_params_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "reference" / "params.md"
    assert page.read_text(encoding="utf-8") == reference(), "run: histoloom params > docs/reference/params.md"
