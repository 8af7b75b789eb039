"""A study of tiles that are cut already is begun by one command; what it can't tell is named, with the key."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from ruamel.yaml import YAML

from histoloom.cli.draft_tiles import draft_tiles
from histoloom.cli.main import cli
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.studies.checks.validate import check_study
from tests.build import tissue_picture, write_csv
from tests.tiny_study import edit_yaml

PX = 64


def _write(folder: Path, *names: str, px: int = PX) -> Path:
    """Pictures of tissue under these names."""
    tissue = tissue_picture(px + 64, px + 64)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        at = 2 * (number % 32)
        Image.fromarray(tissue[at : at + px, at : at + px]).save(folder / name)
    return folder


def _names(classes=("tumour/", "stroma/")) -> list[str]:
    return [f"{name}P{patient}_{n}.png" for name in classes for patient in range(4) for n in range(2)]


def _init(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["init", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def _stated(study: Path) -> dict:
    return YAML(typ="safe").load((study / "params.yaml").read_text(encoding="utf-8"))


def _faults(study: Path) -> list[str]:
    return [str(fault) for fault in faults_among(check_study(Study(study)))]


def test_a_folder_of_classes_needs_no_more_than_its_patients(folder):
    code, said = _init("study", "--tiles", _write(folder / "tiles", *_names()), "--mpp", "0.5")
    assert code == 0 and "16 picture(s) found" in said and "Labels: stroma (8), tumour (8)." in said
    assert "manifests/slides.csv" not in said and not Path("study/manifests/slides.csv").exists()
    tile = _stated(Path("study"))["tile"]
    assert tile["manifest"] is None and "slides_root" not in tile and tile["labels"]["classes"] == ["stroma", "tumour"]
    assert (tile["mpp"], tile["tile_px"], tile["stride_px"], tile["sets"][0]["mpp"]) == (0.5, PX, PX, 0.5)
    (fault,) = _faults(Path("study"))
    assert "state neither patient nor slide" in fault
    pattern = re.search(r"patterns: \{patient_id: '(.*?)'\}", said)
    edit_yaml(Path("study/params.yaml"), tile={"sets": [tile["sets"][0] | {"patterns": {"patient_id": pattern[1]}}]})
    assert _faults(Path("study")) == []


def test_a_set_without_labels_is_a_study_without_labels(folder):
    code, said = _init("study", "--tiles", _write(folder / "tiles", *_names(("",))), "--recipe", "trial")
    assert code == 0 and "recipe no-labels" in said and "the scale of the pictures" in said
    found = _stated(Path("study"))
    assert found["tile"]["labels"]["source"] == "none" and found["train_denoiser"]["conditions"] == ["image"]
    sets = [found["tile"]["sets"][0] | {"mpp": 0.5, "patterns": {"patient_id": r"^(P\d)"}}]
    edit_yaml(Path("study/params.yaml"), tile={"sets": sets})
    assert _faults(Path("study")) == []


def test_a_packaged_model_keeps_the_conditions_that_it_has(folder):
    assert _init("study", "--tiles", _write(folder / "tiles", *_names(("",))), "--recipe", "adapt")[0] == 0
    assert _stated(Path("study"))["train_denoiser"]["conditions"] == ["magnification", "text", "image"]


def test_what_columns_state_is_not_asked_for(folder):
    _write(folder / "tiles", *(f"{n}.png" for n in range(6)))
    rows = [{"path": f"{n}.png", "patient_id": f"P{n}", "label": "ab"[n % 2], "mpp": 0.25} for n in range(6)]
    write_csv(folder / "tiles/all.csv", rows)
    draft = draft_tiles("tiles/all.csv", None)
    assert draft.left == [] and draft.tile["mpp"] == 0.25 and draft.tile["labels"]["classes"] == ["a", "b"]
    pictures = [(folder / f"tiles/{n}.png").read_bytes() for n in range(6)]
    pd.DataFrame({"image": pictures, "slide_id": list("ssttuu"), "label": list("ababab")}).to_parquet("all.parquet")
    (left,) = draft_tiles("all.parquet", None).left
    assert left.startswith("the scale") and draft_tiles("all.parquet", 0.5).left == []


@pytest.mark.parametrize(
    "px, tile_px, larger", [(64, 64, "centre"), (100, 96, "centre"), (20, 20, "centre"), (600, 256, "grid")]
)
def test_the_side_of_tiles_fits_the_pictures(folder, px, tile_px, larger):
    draft = draft_tiles(str(_write(folder / "tiles", "a/1.png", "b/2.png", px=px)), 0.5)
    assert (draft.tile["tile_px"], draft.tile["sets"][0]["larger"]) == (tile_px, larger)


def test_pictures_of_several_sizes_are_as_small_as_the_least_and_those_that_cannot_be_read_do_not_count(folder):
    _write(folder / "tiles", "a/1.png")
    _write(folder / "tiles", "a/2.png", px=130)
    (folder / "tiles/a/3.png").write_bytes(b"none")
    draft = draft_tiles("tiles", 0.5)
    assert draft.tile["tile_px"] == 64 and "64 px to 130 px" in draft.words[0]


def test_an_array_file_is_a_set_too(folder):
    np.savez("in.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.array(["a", "b", "a", "b"]))
    draft = draft_tiles("in.npz", 0.5)
    assert draft.tile["tile_px"] == 32 and draft.tile["labels"]["classes"] == ["a", "b"]


def test_what_is_no_set_leaves_nothing(folder):
    with pytest.raises(HistoloomError, match="nothing lies there"):
        draft_tiles("nowhere", None)
    (folder / "empty").mkdir()
    code, said = _init("study", "--tiles", "empty")
    assert code == 1 and "no picture lies in it" in said and not Path("study").exists()


@pytest.mark.parametrize("more", [("--slides", "."), ("--system", "ddib")])
def test_tiles_are_alone(folder, more):
    code, said = _init("study", "--tiles", ".", *more)
    assert code == 2 and "tile.sets" in said
    assert "--mpp is of --tiles" in _init("study", "--mpp", "0.5")[1]
