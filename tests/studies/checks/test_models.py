"""What the leak gate will refuse of the models that params begin from is known before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from histoloom.config.package import root
from histoloom.data.lineage import Lineage
from histoloom.data.study_folder import Study
from histoloom.errors import faults_among
from histoloom.studies.checks.validate import check_study
from tests.build import make_slide, make_study


def _faults(dataset: str, *, allow: bool = False) -> list[str]:
    """Of a study that begins from a model which saw the public slide set:B."""
    rows = []
    for name, split in (("A", "train"), ("b", "test")):
        make_slide(f"data/slides/{name}.tif", width=128, height=128)
        row = {"slide_id": name, "path": f"{name}.tif", "patient_id": f"p{name}", "split": split, "label": "tumour"}
        rows.append(row | {"dataset": dataset})
    shutil.copytree(root() / "histoloom-small", "package", dirs_exist_ok=True)
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


def test_a_slide_that_may_be_one_of_a_public_set_is_asked_for(folder):
    (fault,) = _faults("", allow=True)
    assert "row 3, column 'dataset'" in fault and "write `dataset` set and the id B" in fault


def test_ancestors_that_nobody_knows_are_a_fault_unless_they_are_allowed(folder):
    (fault,) = _faults("own")
    assert "was trained: set:A, set:B." in fault and "allow_unknown_ancestors" in fault
    assert _faults("own", allow=True) == []


@pytest.mark.parametrize("name", ["a:b", "my set"])
def test_a_data_set_s_name_is_one_word(folder, name):
    assert sum("can't name a data set" in fault for fault in _faults(name, allow=True)) == 2
