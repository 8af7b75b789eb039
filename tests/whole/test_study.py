"""The whole way through on a tiny study: real DVC, real dask, real slides."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from histoloom.config import Params
from histoloom.data.commit import hash_tree
from histoloom.data.store import TileStore
from tests.tiny_study import dvc, edit_yaml, run, stage, woven_files

pytestmark = pytest.mark.long

READERS_OF_SAMPLES = {"uplift", "filter", "evaluate", "emit", "report"}


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", output)) - {"resolve"}


def would_run(folder: Path) -> set[str]:
    stage(folder, "resolve")
    return ran(dvc(folder, "repro", "--dry").stdout)


def test_a_second_repro_does_nothing(study):
    assert would_run(study) == set()
    assert ran(dvc(study, "repro").stdout) == set()


def test_params_that_state_no_more_than_they_must_mean_the_same(copy):
    """Whatever has its default goes from params.yaml: no stage runs again, and none misses a key."""
    yaml = YAML()
    stated, defaults = yaml.load((copy / "params.yaml").read_text()), Params.model_construct()
    for section in [name for name in stated if name not in ("seed", "tile")]:
        usual = getattr(defaults, section).model_dump(mode="json")
        for key in [key for key, value in stated[section].items() if usual.get(key) == value]:
            del stated[section][key]
        if not stated[section]:
            del stated[section]
    with (copy / "params.yaml").open("w") as stream:
        yaml.dump(stated, stream)
    assert "attention" not in stated["train_denoiser"] and "edges" not in stated.get("encode", {})
    assert would_run(copy) == set()
    dvc(copy, "repro", "--force", "--single-item", "sample")


def test_status_names_the_file_that_changed(copy):
    path = next((copy / "manifests/annotations").glob("*.geojson"))
    path.write_text(path.read_text() + " ")
    said = run(copy, "histoloom", "status").stdout
    assert re.search(r"^tile .*\n?.*column 'annotations'", said, re.MULTILINE), said


def test_every_stage_left_what_dvc_yaml_promises(study):
    for output in ("data/tiles", "data/encoded", "data/plan", "data/synthetic", "data/verdicts", "data/dataset"):
        assert any((study / output).iterdir())
    for name in ("tile", "train_autoencoder", "filter", "evaluate", "emit"):
        assert json.loads((study / "reports" / name / "metrics.json").read_text())
    rows = TileStore(study / "data/synthetic", rows_from=study / "data/verdicts").rows()
    assert set(rows["purpose"]) == {"augment", "evaluate"}
    assert rows["tile_id"].is_unique
    assert rows.loc[~rows["accepted"], "reject_reasons"].str.len().gt(0).all()
    assert rows.loc[rows["accepted"], "reject_reasons"].str.len().eq(0).all()
    facts = rows[["scheduler", "steps", "precision", "window_layout"]].drop_duplicates()
    assert facts.to_numpy().tolist() == [["dpmsolver++", 4, "fp32", None]]
    assert all([g["condition"] for g in guidance] == ["label", "text", "mask"] for guidance in rows["guidance"])


def test_only_the_train_split_was_seen(study):
    rows = TileStore(study / "data/tiles").rows()
    train = set(rows.loc[rows["split"] == "train", "split_group"])
    for model in ("encoders", "autoencoder", "denoiser", "filters"):
        seen = json.loads((study / "models" / model / "lineage.json").read_text())
        assert set(seen["groups"]) <= train and seen["groups"], model
    plan = pd.read_parquet(study / "data/plan/plan.parquet")
    assert set(plan.loc[plan["purpose"] == "augment", "split_group"]) <= train
    assert not set(plan.loc[plan["purpose"] == "evaluate", "split_group"]) & train


def test_changing_sample_reruns_what_reads_it(copy):
    edit_yaml(copy / "params.yaml", sample={"guidance": 3.0})
    assert would_run(copy) == {"sample"}
    dvc(copy, "repro", "sample")
    assert would_run(copy) == READERS_OF_SAMPLES


def test_changing_a_woven_slide_reruns_from_weaving(copy):
    edit_yaml(copy / "params.yaml", sample_slides={"steps": 3})
    assert would_run(copy) == {"sample_slides"}  # and what reads its outputs, once they have changed


def test_changing_cluster_yaml_reruns_nothing(copy):
    edit_yaml(copy / "cluster.yaml", workers=1, device="cpu")
    assert would_run(copy) == set()


def test_the_report_asks_nothing_of_the_network(study):
    page = (study / "reports/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|slides/)""", page)
    assert "url(" not in page
    assert page.count("<img") >= 6
    assert "train alone has taught the generator" in page


def test_a_clone_pulls_a_tagged_dataset(copy, tmp_path):
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    dvc(copy, "remote", "add", "--local", "--force", "--default", "store", str(remote))
    dvc(copy, "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", "--branch", "v1", str(copy), str(clone))
    dvc(clone, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(clone, "pull", "--quiet", "data/dataset", "reports/index.html")
    assert hash_tree(clone / "data/dataset") == hash_tree(copy / "data/dataset")
    assert (clone / "reports/index.html").is_file()


def test_two_workers_make_the_same_bytes_as_this_process(study, copy):
    edit_yaml(copy / "cluster.yaml", workers=2)
    stage(copy, "sample")
    stage(copy, "sample_slides")
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")
    assert woven_files(copy / "data/woven") == woven_files(study / "data/woven")


def test_a_woven_slide_is_a_slide_and_comes_back_as_tiles(study):
    folder = study / "data/woven/woven"
    with openslide.open_slide(str(folder / "slide.tif")) as slide:
        assert slide.dimensions == (120, 88) and float(slide.properties["openslide.mpp-x"]) == 1.0
    with openslide.open_slide(str(folder / "condition.tif")) as condition:
        ids = np.asarray(condition.read_region((0, 0), 0, condition.dimensions))[..., 0]
    assert (ids[:, :44] == 1).all() and (ids[:, 44:88] == 2).all() and (ids[:, 90:] == 0).all()
    assert json.loads((folder / "polygons.geojson").read_text())["features"]
    facts = json.loads((folder / "canvas.json").read_text())
    assert len(facts["steps"]) == 4 and facts["ancestors"] == ["patient-slide-train"]
    assert not re.search(rb"patient|slide-train", b"".join(p.read_bytes() for p in folder.glob("*.tif")))
    rows = TileStore(study / "data/woven_tiles", rows_from=study / "data/verdicts").rows()
    assert set(rows["source"]) == {"synthetic"} and set(rows["label"]) <= {"left", "right", None}
    assert [list(groups) for groups in rows["ancestors"]] == [["patient-slide-train"]] * len(rows)
    assert {"woven"} == set(rows["request"]) and rows["accepted"].dtype == bool
    assert set(rows["window_layout"]) == {"lattice"} and set(rows["steps"]) == {4}
    assert "woven" in json.loads((study / "reports/filter/metrics.json").read_text())


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the page in")
def test_a_browser_opens_the_report_and_runs_nothing_that_the_user_wrote(copy, tmp_path):
    hostile = "<script>document.body.innerHTML = 'ran'</script><img src=x onerror=\"document.body.innerHTML = 'ran'\">"
    edit_yaml(copy / "params.yaml", report={"title": hostile})
    stage(copy, "report")
    page, shot = copy / "reports/index.html", tmp_path / "shot.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dom = run(copy, *browser, "--dump-dom", f"file://{page}").stdout
    assert "<h1>&lt;script&gt;" in dom and "Provenance" in dom and "<script>" not in dom and '<img src="x"' not in dom
    run(copy, *browser, "--window-size=1200,3000", f"--screenshot={shot}", f"file://{page}")
    assert np.asarray(Image.open(shot).convert("L")).std() > 5, "the page is blank"


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the page in")
def test_a_browser_opens_the_page_of_a_woven_slide(study, tmp_path):
    page, shots = study / "reports/slides/woven.html", []
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page.read_text(encoding="utf-8").split("<script>")[0])
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    browser += ["--virtual-time-budget=8000", "--window-size=600,500"]
    dom = run(study, *browser, "--dump-dom", f"file://{page}").stdout
    assert 'data-slide="open"' in dom and 'data-overlay="ready"' in dom and re.search(r'data-tiles="[1-9]', dom)
    for name in ("", "#mask"):
        shots.append(tmp_path / f"shot{len(shots)}.png")
        run(study, *browser, f"--screenshot={shots[-1]}", f"file://{page}{name}")
    plain, masked = (np.asarray(Image.open(shot).convert("RGB")).astype(int) for shot in shots)
    assert plain[60:-60].std() > 5, "the page is blank"
    assert np.abs(plain - masked)[60:-60].mean() > 5, "the mask does not show"


def test_diff_and_status_say_what_changed(copy):
    edit_yaml(copy / "params.yaml", sample={"guidance": 1.0})
    assert "sample.guidance" in run(copy, "histoloom", "diff", "v1").stdout
    assert "params: sample.guidance changed from 2.0 to 1.0" in run(copy, "histoloom", "status").stdout


def _package(study: Path, folder: Path, *options: str) -> bytes:
    """Every byte of a package's files and of their names."""
    words = folder.with_suffix(".md")
    words.write_text("Slides of Somebody et al.", encoding="utf-8")
    said = run(study, "histoloom", "package", str(folder), "--attribution", str(words), *options)
    assert "check: the text tower learnt the words" in said.stdout + said.stderr
    files = [p for p in folder.rglob("*") if p.is_file()]
    return b"".join(p.relative_to(folder).as_posix().encode() + p.read_bytes() for p in files)


def test_a_package_tells_no_id_no_split_and_no_path(study, tmp_path):
    said, place = _package(study, tmp_path / "coded"), str(study.parent.parent).encode()
    assert (
        not re.findall(rb"slide-\w+|patient-\w+|manifests|data/slides|\.geojson|\.csv|assign", said)
        and place not in said
    )


def test_the_package_of_a_public_set_names_what_it_saw_and_what_was_held_out(study, tmp_path):
    folder, place = tmp_path / "clear", str(study.parent.parent).encode()
    said = _package(study, folder, "--dataset", "tiny", "--public")
    seen, held_out = (
        {b"tiny:patient-slide-train", b"tiny:slide-train"},
        {b"tiny:patient-slide-val", b"tiny:patient-slide-test"},
    )
    assert set(re.findall(rb"[\w:-]*slide-\w+", said)) == seen | held_out
    assert not any(name in path.read_bytes() for path in folder.rglob("lineage.json") for name in held_out)
    assert b"manifests" not in said and place not in said


def test_the_report_says_at_its_top_that_it_is_internal(study):
    for page in (study / "reports/index.html", study / "reports/slides/woven.html"):
        body = page.read_text(encoding="utf-8").split("<body>")[1]
        assert "Internal: not to be passed on." in body[:120]


def documented_snippets() -> dict[str, str]:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "train-on-a-dataset.md"
    return dict(re.findall(r"## (\w+)\n.*?```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))


@pytest.mark.parametrize("name", ["ImageFolder", "WebDataset", "Parquet"])
def test_the_documented_lines_train_on_each_format(study, name):
    done = run(study, sys.executable, "-W", "ignore", "-c", documented_snippets()[name])
    assert re.search(r"loss \d", done.stdout)
