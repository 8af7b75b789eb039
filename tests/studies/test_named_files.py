"""What params name by path is known by what it holds, wherever it lies."""

from __future__ import annotations

import json
import os
from functools import reduce
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.config import Evaluate, Params
from histoloom.errors import HistoloomError
from histoloom.studies.dvc_yaml import study_yaml
from histoloom.studies.named_files import Hashes, files_of, resolved
from histoloom.studies.resolve import write_resolved
from histoloom.studies.stage_work import _fingerprint, run_stage
from histoloom.studies.stages import STAGES
from tests.stages import study_of

FEWEST = {"tile": {"mpp": 0.5, "labels": {"classes": ["t"]}}}


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study's folder, and beside it a folder with a file of each kind that params can name."""
    folder, outside = tmp_path / "study", tmp_path / "outside"
    folder.mkdir()
    for name in ("a.geojson", "slides/a.svs", "slides/a_mask.png", "spots.csv", "rna.parquet", "genotype.csv"):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_text(f"first {name}")
    for name in ("shorten.py", "mine.py", "skin.geojson", "field.csv", "holes.geojson", "weights.pth"):
        (outside / name).write_text(f"first {name}")
    for name in ("autoencoder", "denoiser", "text", "rna_init", "checkpoint", "tower"):
        (outside / name).mkdir()
        (outside / name / "config.json").write_text("{}")
    (outside / "slides.csv").write_text("slide_id,path,patient_id,annotations,mask\na,a.svs,p,a.geojson,a_mask.png\n")
    monkeypatch.chdir(folder)
    return folder


def params(outside: str = "../outside") -> Params:
    def at(name: str) -> str:
        return f"{outside}/{name}"

    image = {"slide_id": "a", "width_px": 8, "height_px": 8, "keep": True, "holes": at("holes.geojson")}
    woven = {"name": "w", "width_px": 64, "height_px": 64, "mask": at("skin.geojson"), "outside": "glass"}
    return Params.model_validate(
        {
            "tile": {
                **FEWEST["tile"],
                "masks": {"source": "polygons", "classes": ["t"]},
                "manifest": at("slides.csv"),
                "slides_root": at("slides"),
                "annotations_root": outside,
                "spots": at("spots.csv"),
                "summarise": f"python {at('shorten.py')}",
            },
            "train_encoders": {
                "text": {"source": at("text")},
                "rna": {"table": at("rna.parquet"), "init": at("rna_init")},
                "genotype": {"table": at("genotype.csv")},
                "image": {"source": at("tower")},
            },
            "train_autoencoder": {"init": at("autoencoder"), "resume_from": at("checkpoint")},
            "train_denoiser": {"init": at("denoiser"), "resume_from": at("checkpoint")},
            "sample_slides": {"slides": [{**woven, "condition_grid": at("field.csv"), "image": image}]},
            "train_filters": {"features": at("tower")},
            "evaluate": {"weights": at("weights.pth")},
            "uplift": {"learner": "command", "command": f"python {at('mine.py')} {{dataset}} {{predictions}}"},
        }
    )


@pytest.mark.parametrize(
    "name, keys",
    [
        ("slides.csv", {"tile.manifest"}),
        ("slides/a.svs", {"tile.slides"}),
        ("slides/a_mask.png", {"tile.mask"}),
        ("a.geojson", {"tile.annotations"}),
        ("spots.csv", {"tile.spots"}),
        ("shorten.py", {"tile.summarise"}),
        ("text/config.json", {"train_encoders.text"}),
        ("rna.parquet", {"train_encoders.rna"}),
        ("rna_init/config.json", {"train_encoders.rna_init"}),
        ("genotype.csv", {"train_encoders.genotype"}),
        ("tower/config.json", {"train_encoders.image", "train_filters.features"}),
        ("autoencoder/config.json", {"train_autoencoder.init"}),
        ("denoiser/config.json", {"train_denoiser.init"}),
        ("checkpoint/config.json", {"train_autoencoder.resume_from", "train_denoiser.resume_from"}),
        ("skin.geojson", {"sample_slides.masks"}),
        ("field.csv", {"sample_slides.condition_grids"}),
        ("holes.geojson", {"sample_slides.holes"}),
        ("weights.pth", {"evaluate.weights"}),
        ("mine.py", {"uplift.command"}),
    ],
)
def test_a_file_that_changes_changes_the_keys_that_name_it(study, name, keys):
    path = study / "../outside" / name
    before = files_of(study_of(params()))
    path.write_text(path.read_text() + "\n")
    after = files_of(study_of(params()))
    assert {f"{s}.{k}" for s in after for k in after[s] if after[s][k] != before[s][k]} == keys
    path.unlink()
    assert files_of(study_of(params())) != after


def test_a_changed_genotype_encodes_its_tiles_anew(study):
    """Markers and states stay the same, so that no encoder changes."""
    for place in STAGES["encode"].inputs:
        (study / place).mkdir(parents=True)
    before = _fingerprint(STAGES["encode"], study_of(params()))
    (study / "../outside/genotype.csv").write_text("patient_id,TP53\np,WT\n")
    assert _fingerprint(STAGES["encode"], study_of(params())) != before


def test_a_study_that_is_opened_from_elsewhere_finds_the_same_files(study, monkeypatch):
    config = params()
    here, resolved_here = files_of(study_of(config)), resolved(study_of(config), ["tile", "train_encoders", "uplift"])
    for folder in (study.parent, study / "deep"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        for root in (study, Path(os.path.relpath(study))):
            assert files_of(study_of(config, root)) == here
            assert resolved(study_of(config, root), resolved_here) == resolved_here


def test_evaluate_looks_through_a_folder_too(study):
    config = params().model_copy(update={"evaluate": Evaluate(features="../outside/tower")})
    before = files_of(study_of(config), "evaluate")
    (study / "../outside/tower/config.json").write_text("[]")
    assert before["evaluate"]["features"] != files_of(study_of(config), "evaluate")["evaluate"]["features"]


def test_a_change_behind_a_linked_folder_is_seen(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/weights").write_text("one")
    (tmp_path / "model/encoders").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "model")
    before = Hashes(tmp_path / "h").of(tmp_path / "model")
    assert Hashes(tmp_path / "h").of(tmp_path / "model") == before
    (tmp_path / "elsewhere/deep/weights").write_text("another")
    assert Hashes(tmp_path / "h").of(tmp_path / "model") != before


def test_many_files_are_hashed_as_each_is(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "in" / name).write_text(name)
    (tmp_path / "in/link").symlink_to(tmp_path / "in/a")
    paths = [tmp_path / "in" / name for name in ("a", "deep/b", "link", "deep", "gone", "a")]
    hashes = Hashes(tmp_path / "h")
    assert hashes.of_all(paths) == [Hashes(tmp_path / "other").of(path) for path in paths]
    hashes.save(all_asked=True)
    (tmp_path / "in/a").write_text("another")
    before, after = hashes.of_all(paths), Hashes(tmp_path / "h").of_all(paths)
    assert [a == b for a, b in zip(before, after)] == [True] * 6
    assert Hashes(tmp_path / "h").of_all(paths)[0] == Hashes(tmp_path / "other").of(tmp_path / "in/a")


def test_reviews_count_where_a_filter_reads_them(study):
    (study / "reviews").mkdir()
    plain = params()
    asked = plain.model_copy(update={"filter": plain.filter.model_copy(update={"use": ("review",)})})
    before = [files_of(study_of(config), "train_filters") for config in (plain, asked)]
    (study / "reviews/verdicts.csv").write_text("tile_id\n")
    after = [files_of(study_of(config), "train_filters") for config in (plain, asked)]
    assert after[0] == before[0] and after[1] != before[1]


def test_what_no_param_names_changes_nothing(study):
    before = files_of(study_of(params()))
    (study / "../outside/slides/old.svs").symlink_to("/nonexistent/slide.svs")
    (study / "../outside/slides/b.svs").write_text("another slide, in no row")
    assert files_of(study_of(params())) == before


def test_every_key_that_a_stage_depends_on_is_there_though_params_state_the_fewest(study):
    fewest = study_of(Params.model_validate(FEWEST))
    write_resolved(fewest)
    written = YAML(typ="safe").load(fewest.resolved.read_text())
    for name, stage in STAGES.items():
        for key, value in resolved(fewest, stage.params).items():
            assert reduce(lambda inner, part: inner[part], key.split("."), written) == value, f"{name} depends on {key}"


@pytest.mark.parametrize("written, named", [((), ("a", "b")), (("a", "b"), ()), (("a",), ("a", "b"))])
def test_a_dvc_yaml_of_other_models_is_refused(study, written, named):
    models = {name: {} for name in named}
    Path("params.yaml").write_text(json.dumps(FEWEST | {"models": models, "sample": {"chain": [*named[:1]]}}))
    Path("dvc.yaml").write_text(study_yaml(written))
    with pytest.raises(HistoloomError, match="Write it anew: histoloom stages"):
        run_stage("resolve")
    Path("dvc.yaml").write_text(study_yaml(named))
    run_stage("resolve")


def test_each_section_that_names_files_is_read_by_a_stage():
    read = {key for stage in STAGES.values() for several in (False, True) for key in stage.keys(several=several)}
    assert {f"files.{section}" for section in files_of(study_of(Params.model_validate(FEWEST)))} <= read


def test_a_file_is_read_again_only_where_it_changed(tmp_path):
    path, kept = tmp_path / "a", tmp_path / "hashes.json"
    path.write_text("one")
    hashes = Hashes(kept)
    first = hashes.of(path)
    hashes.save(all_asked=True)
    table = json.loads(kept.read_text())
    table[str(path)][3] = "as it was kept"
    kept.write_text(json.dumps(table))
    assert Hashes(kept).of(path) == "as it was kept"
    path.write_text("two")
    assert Hashes(kept).of(path) not in ("as it was kept", first)
