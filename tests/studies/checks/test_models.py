"""What the leak gate will refuse of the models that params begin from is known before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from histoloom.config.package import TILE_ENCODER, root
from histoloom.data.commit import write_json
from histoloom.data.lineage import Lineage
from histoloom.data.study_folder import Study
from histoloom.errors import faults_among, lines_of
from histoloom.studies.checks.validate import check_study
from tests.build import make_slide, make_study


def _faults(dataset: str, *, allow: bool = False) -> list[str]:
    """Of a study that begins from a model which saw the public slide set:B."""
    rows = []
    for name, split in (("A", "train"), ("b", "val")):
        make_slide(f"data/slides/{name}.tif", width=128, height=128)
        row = {"slide_id": name, "path": f"{name}.tif", "patient_id": f"p{name}", "split": split, "label": "tumour"}
        rows.append(row | {"dataset": dataset})
    shutil.copytree(root() / "histoloom-base", "package", dirs_exist_ok=True)
    for part in ("autoencoder", "denoiser", "encoders"):
        Lineage(("set:A", "set:B"), (), (), ("set",)).save(Path("package") / part)
    make_study(".", rows, train_denoiser={"init": "package"}, emit={"allow_unknown_ancestors": allow})
    return [str(fault) for fault in faults_among(check_study(Study()))]


def test_a_held_out_slide_that_the_model_saw_is_a_fault(folder):
    (fault,) = _faults("SET")
    assert (
        "slides.csv, row 3, column 'split': 'b' is held out, and the model of train_denoiser.init was trained on it"
        in fault
    )


def test_all_groups_that_the_model_saw_are_named_at_once_in_a_block_that_mends_it(folder):
    """Splits are drawn, so that to assign those alone that are held out would draw others that the model saw."""
    shutil.copytree(root() / "histoloom-base", "package")
    for part in ("autoencoder", "denoiser", "encoders"):
        Lineage(tuple(f"set:P{n}" for n in range(4)), (), (), ("set",)).save(Path("package") / part)
    rows = [
        {"slide_id": f"s{n}", "path": f"s{n}.tif", "patient_id": f"P{n}", "label": "tumour", "dataset": "set"}
        for n in range(7)
    ]
    for row in rows:
        make_slide(f"data/slides/{row['path']}", width=128, height=128)

    def faults(**split) -> list:
        make_study(".", rows, {"split": split}, train_denoiser={"init": "package"})
        return faults_among(check_study(Study()))

    found = faults(fractions={"train": 0.2, "val": 0.4, "test": 0.4})
    (remedy,) = {fault.remedy for fault in found}
    assert len(lines_of(found)) == 1
    assigned = YAML(typ="safe").load(remedy.partition("params.yaml:\n")[2])["tile"]["split"]["assign"]
    assert assigned == {f"P{n}": "train" for n in range(4)}
    assert faults(fractions={"train": 0.2, "val": 0.4, "test": 0.4}, assign=assigned) == []


def test_a_slide_that_may_be_one_of_a_public_set_is_asked_for(folder):
    (fault,) = _faults("", allow=True)
    assert "row 3, column 'dataset'" in fault and "write `dataset` set and the id B" in fault


def test_several_slides_that_may_be_of_a_public_set_are_one_line(folder):
    shutil.copytree(root() / "histoloom-base", "package")
    for part in ("autoencoder", "denoiser", "encoders"):
        Lineage(("set:s1", "set:s2"), (), (), ("set",)).save(Path("package") / part)
    rows = []
    for n, split in enumerate(("train", "val", "test")):
        make_slide(f"data/slides/s{n}.tif", width=128, height=128)
        rows.append(
            {"slide_id": f"s{n}", "path": f"s{n}.tif", "patient_id": f"P{n}", "label": "tumour", "split": split}
        )
    make_study(".", rows, train_denoiser={"init": "package"}, emit={"allow_unknown_ancestors": True})
    (line,) = lines_of(faults_among(check_study(Study())))
    assert "rows 3 and 4, column 'dataset'" in line and "'set:s1' and 'set:s2'" in line
    assert "for every slide of it, those in train too" in line


def test_ancestors_that_nobody_knows_are_a_fault_unless_they_are_allowed(folder):
    (fault,) = _faults("own")
    assert "was trained: set:A, set:B." in fault and "allow_unknown_ancestors" in fault
    assert _faults("own", allow=True) == []


@pytest.mark.parametrize("name", ["a:b", "my set"])
def test_a_data_set_s_name_is_one_word(folder, name):
    assert sum("can't name a data set" in fault for fault in _faults(name, allow=True)) == 2


def test_an_encoder_of_tiles_that_saw_a_held_out_slide_is_a_fault(folder):
    folder = Path("tower")
    write_json(folder / "image/config.json", {"_class_name": TILE_ENCODER, "image_px": 16, "width": 8, "size": 8})
    save_file({"mean": np.zeros(8, np.float32)}, folder / "image/model.safetensors")
    Lineage(("pb",), ("b",)).save(folder)
    rows = []
    for name, split in (("A", "train"), ("b", "val")):
        make_slide(f"data/slides/{name}.tif", width=128, height=128)
        row = {"slide_id": name, "path": f"{name}.tif", "patient_id": f"p{name}", "split": split, "label": "tumour"}
        rows.append(row)

    def faults(source: str) -> list[str]:
        looks = {"train_denoiser": {"conditions": ["image"]}, "train_encoders": {"image": {"source": source}}}
        make_study(".", rows, **looks)
        return [str(fault) for fault in faults_among(check_study(Study()))]

    assert faults("train") == []
    found = faults("tower/image")
    assert found and all("the model of train_encoders.image.source was trained on" in fault for fault in found)
    (unknown,) = faults("timm:resnet18")
    assert "nobody knows whose these are" in unknown and "timm:resnet18" in unknown
    Path("nothing").mkdir()
    assert "holds neither an encoder of tiles nor a CLIP" in faults("./nothing")[0]
