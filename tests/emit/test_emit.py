"""The dataset as its readers see it: pixels exact, nobody named."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from histoloom.config import Params
from histoloom.data.schema import REFUSED, SYNTHETIC_ROW
from histoloom.errors import HistoloomError
from histoloom.studies.emit import emit_dataset
from tests.build import make_part, synthetic_rows, tile_rows, tiles, write_verdicts
from tests.stages import study_of

SALT = b"a salt for tests, sixteen and more"
PATIENTS = {"train": "Jane-Doe-1950", "val": "John-Roe-1961", "test": "Ann-Poe-1972"}
SECRETS = [*PATIENTS.values(), "Jane", "SLIDE", "REPORT", "keratin-0"]
LABELS = ["keratin", "epidermis", None]


def _real(split: str, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rows = tile_rows(
        7,
        tile_id=[f"SLIDE-{split}_{n}_0" for n in range(7)],
        slide_id=f"SLIDE-{split}",
        patient_id=PATIENTS[split],
        split_group=PATIENTS[split],
        split=split,
        label=[LABELS[n % 3] for n in range(7)],
        caption="REPORT of " + PATIENTS[split],
        mpp=0.5,
    )
    return rows, tiles(7, 16, seed)


def keratin_rows(count: int, **columns) -> pd.DataFrame:
    """Rows of synthetic tiles of keratin, under conditions of the train patient's."""
    fields = {
        "tile_id": [f"keratin-{n:06d}" for n in range(count)],
        "split_group": PATIENTS["train"],
        "label": "keratin",
        "caption": "REPORT",
        "mpp": 0.5,
        "seed": np.arange(count, dtype=np.uint64) + np.uint64(1 << 63),
        "generator_sha256": "g1",
        "condition_ref": "SLIDE-train_0_0",
        "request": "keratin",
        "ancestors": [[PATIENTS["train"]]] * count,
    }
    return synthetic_rows(count, **fields | columns)


@pytest.fixture
def study(folder):
    """Stores of 21 real and 5 synthetic tiles, of which three passed; one is to evaluate."""
    for seed, split in enumerate(PATIENTS):
        make_part("data/tiles", f"SLIDE-{split}", *_real(split, seed))
    rows = keratin_rows(5, purpose=["augment"] * 4 + ["evaluate"])
    make_part("data/synthetic", "augment-00000", rows, tiles(5, 16, 9), SYNTHETIC_ROW)
    write_verdicts("data/verdicts/augment-00000", rows, [True, False, True, True, True])
    _lineage([PATIENTS["train"]])
    return folder


def _lineage(groups: list[str], unknown: tuple[str, ...] = ()) -> None:
    record = {"g1": {"groups": groups, "slides": ["SLIDE-train"], "unknown": list(unknown)}}
    Path("data/synthetic/lineage.json").write_text(json.dumps(record))


def _params(**emit) -> Params:
    labels = {"source": "slide", "classes": ["keratin", "epidermis"]}
    return Params.model_validate({"tile": {"mpp": 0.5, "tile_px": 16, "labels": labels}, "emit": emit})


def _emit(folder="out", salt=SALT, **emit) -> dict:
    return emit_dataset(study_of(_params(**emit)), Path(folder), salt)


def _expected() -> dict[str, set[tuple[str, bytes]]]:
    """Label and pixels of every tile that should leave, by split."""
    out = {}
    for seed, split in enumerate(PATIENTS):
        rows, images = _real(split, seed)
        labelled = zip(rows["label"], images, strict=True)
        out[split] = {(label, image.tobytes()) for label, image in labelled if label is not None}
    out["train"] |= {("keratin", tiles(5, 16, 9)[n].tobytes()) for n in (0, 2, 3)}
    return out


def _read_imagefolder(folder: Path, split: str) -> list:
    from torchvision.datasets import ImageFolder

    found = ImageFolder(str(folder / "imagefolder" / split), allow_empty=True)
    stated = json.loads((folder / "classes.json").read_text())
    assert found.classes == stated["folders"]
    lines = [json.loads(line) for line in (folder / "imagefolder" / split / "metadata.jsonl").read_text().splitlines()]
    assert {line["file_name"] for line in lines} == {
        Path(p).relative_to(found.root).as_posix() for p, _ in found.samples
    }
    assert {(line["label"], line["cls"]) for line in lines} <= {(c, n) for n, c in enumerate(stated["classes"])}
    return [(stated["classes"][label], np.asarray(image).tobytes()) for image, label in found]


def _read_webdataset(folder: Path, split: str) -> list:
    import webdataset

    shards = sorted(str(p) for p in (folder / "webdataset").glob(f"{split}-*.tar"))
    found = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("png", "json")
    classes = json.loads((folder / "classes.json").read_text())["classes"]
    read = [(row["label"], row["cls"], image.tobytes()) for image, row in found]
    assert all(classes[number] == label for label, number, _ in read)
    return [(label, pixels) for label, _, pixels in read]


def _read_parquet(folder: Path, split: str) -> list:
    from datasets import load_dataset

    shards = sorted(str(p) for p in (folder / "parquet").glob(f"{split}-*.parquet"))
    found = load_dataset("parquet", data_files={split: shards}, cache_dir=str(folder.parent / "cache"))[split]
    assert {row["mpp"] for row in found} == {0.5}
    label = found.features["label"]
    assert label.names == json.loads((folder / "classes.json").read_text())["classes"]
    return [(label.int2str(row["label"]), np.asarray(row["image"]).tobytes()) for row in found]


@pytest.mark.parametrize("read", [_read_imagefolder, _read_webdataset, _read_parquet])
def test_each_format_s_own_reader_finds_every_tile_exactly(study, read):
    metrics = _emit(formats=[read.__name__.removeprefix("_read_")], shard_tiles=4)
    for split, expected in _expected().items():
        found = read(study / "out", split)
        assert len(found) == len(expected) and set(found) == expected
        counts = metrics["counts"][split]
        assert sum(n for by_label in counts.values() for n in by_label.values()) == len(expected)
    assert metrics["counts"]["train"]["synthetic"] == {"keratin": 3}
    assert set(metrics["counts"]["val"]) == set(metrics["counts"]["test"]) == {"real"}
    assert metrics["synthetic_fraction_of_train"] == pytest.approx(3 / 8)
    assert metrics["unlabelled_left_out"] == {split: {"real": 2} for split in PATIENTS}


def _everything(folder: Path) -> str:
    """All names and contents, with what Parquet compresses written out; pictures are PNG chunks without text."""
    said = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        said += [file.relative_to(folder).as_posix(), file.read_bytes().decode("latin-1")]
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            said += [str(table.schema), table.drop_columns(["image"]).to_pylist().__repr__()]
            pictures = table["image"].to_pylist()
            said += [p["path"] for p in pictures]
            assert all(Image.open(io.BytesIO(p["bytes"])).info == {} for p in pictures)
    return "\n".join(said)


def test_nobody_and_no_place_is_named_in_what_leaves(study):
    _emit()
    said = _everything(study / "out")
    assert not [secret for secret in SECRETS if secret in said] and str(study) not in said
    assert "p-" in said and str((1 << 63) + 2) in said


def test_how_a_tile_was_sampled_is_in_columns_of_one_type(study):
    _emit()
    rows = _rows(study / "out")
    synthetic, real = rows[rows["source"] == "synthetic"], rows[rows["source"] == "real"]
    columns = ["scheduler", "steps", "precision", "window_layout"]
    assert synthetic[columns].drop_duplicates().to_numpy().tolist() == [["ddim", 20, "fp32", ""]]
    assert real[columns].drop_duplicates().to_numpy().tolist() == [["", 0, "", ""]]
    (said,) = set(synthetic["guidance"])
    assert json.loads(said) == [{"condition": "all", "scale": 2.0, "start": 0.0, "end": 1.0}]
    assert set(real["guidance"]) == {""}
    assert {str(pq.read_schema(p)) for p in (study / "out/parquet").glob("*.parquet")} == {
        str(pq.read_schema(next((study / "out/parquet").glob("*.parquet"))))
    }


def test_unknown_ancestors_are_in_the_card_without_patients_and_paths(study):
    (study / "secret/tower").mkdir(parents=True)
    _lineage([PATIENTS["train"], "Eve-Moe-1983"], (str(study / "secret/tower"), "transformers:vinid/plip"))
    with pytest.raises(HistoloomError, match="allow_unknown_ancestors"):
        _emit()
    _emit("out2", allow_unknown_ancestors=True)
    said = _everything(study / "out2")
    assert "Unknown ancestors were allowed" in said and "vinid/plip" in said and "a folder" in said
    assert "Eve-Moe" not in said and str(study) not in said
    card = (study / "out2/README.md").read_text()
    assert "saw 2 groups" in card and "1 of this study's train split and the others of models" in card


def test_captions_leave_only_when_asked_for(study):
    _emit(captions=True)
    assert "REPORT of" in _everything(study / "out")
    assert "Captions were withheld" not in (study / "out/README.md").read_text()


def _rows(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in sorted((folder / "parquet").glob("*.parquet"))])


def test_a_salt_makes_the_same_bytes_and_another_salt_other_codes(study):
    _emit("one")
    _emit("two")
    _emit("three", salt=SALT[::-1])
    assert _everything(study / "one") == _everything(study / "two")
    one, three = _rows(study / "one"), _rows(study / "three")
    for column in ("key", "patient_code", "slide_code"):
        assert not (set(one[column]) & set(three[column])) - {""}
    assert one["patient_code"].nunique() == 4 and one.groupby("patient_code")["split"].nunique().max() == 1
    assert one["key"].is_unique


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_generator_that_saw_held_out_patients_emits_nothing(study, name):
    _lineage([PATIENTS["train"], PATIENTS[name]])
    with pytest.raises(HistoloomError, match=f"held-out groups or slides: {PATIENTS[name]}"):
        _emit()
    assert not (study / "out").exists()


def test_the_card_states_the_counts_and_parses(study):
    from ruamel.yaml import YAML

    _emit(name="skin: v2", licence="CC0-1.0")
    card = (study / "out/README.md").read_text()
    front = YAML(typ="safe").load(card.split("---")[1])
    assert (front["license"], front["pretty_name"]) == ("cc0-1.0", "skin: v2")
    assert [f["split"] for f in front["configs"][0]["data_files"]] == ["train", "validation", "test"]
    for line in (
        "| split | source | keratin | epidermis | all |",
        "| train | real | 3 | 2 | 5 |",
        "| train | synthetic | 3 | 0 | 3 |",
        "| test | real | 3 | 2 | 5 |",
        "Left out, since they have no label: 2 real tiles of test.",
    ):
        assert line in card
    assert "Of 4 synthetic tiles, 3 passed" in card and "One patient" not in card


def test_the_card_names_classes_that_the_generator_is_not_good_enough_for(study):
    path = Path("data/verdicts/augment-00000/rows.parquet")
    rows = pd.read_parquet(path)
    rows["realism_score"] = [1.0, np.nan, np.nan, 1.0, np.nan]
    rows.to_parquet(path)
    _emit()
    card = (study / "out/README.md").read_text()
    assert "not good enough" not in card and "Of `keratin`, 1 synthetic tile passed without being compared" in card
    rows["accepted"] = [False] * 4 + [True]
    rows["reject_reasons"] = [[REFUSED], ["low tissue quality", REFUSED], [REFUSED], [REFUSED], []]
    rows.to_parquet(path)
    shutil.rmtree("out")
    _emit()
    card = (study / "out/README.md").read_text()
    assert (
        "Of `keratin`, no synthetic tile is here: of 4, 3 passed the filters" in card and "being compared" not in card
    )


AUDIT = {"near_copy": {"excess": 0.001, "interval": [-0.002, 0.004], "samples": 90, "real": 80},
         "loss": {"auc": 0.52, "interval": [0.45, 0.6], "over": "split groups", "train": 90, "held_out": 80},
         "nearest_sample": {"train": 9, "held_out": 80}}  # fmt: skip


def test_synthetic_tiles_leave_alone_with_their_audit(study):
    with pytest.raises(HistoloomError, match="dvc repro evaluate"):
        emit_dataset(study_of(_params(include=["synthetic"])), Path("out"), SALT)
    Path("reports/evaluate").mkdir(parents=True)
    Path("reports/evaluate/metrics.json").write_text(json.dumps({"audit": AUDIT}))
    shutil.rmtree("out", ignore_errors=True)
    found = emit_dataset(study_of(_params(include=["synthetic"])), Path("out"), SALT)
    assert found["counts"] == {"train": {"synthetic": {"keratin": 3}}} and found["synthetic_fraction_of_train"] == 1
    card = Path("out/README.md").read_text()
    assert "No real tile is among them" in card and "| +0.0010 | -0.0020 to +0.0040 |" in card
    assert "0.520 | 0.450 to 0.600, over split groups" in card and "not measured | too few tiles" in card
    assert not {path.name.split("-")[0] for path in Path("out/parquet").iterdir()} & {"val", "test"}
    assert "## Audit" not in _card_of(study)


def _card_of(study) -> str:
    emit_dataset(study_of(_params()), Path("both"), SALT)
    return Path("both/README.md").read_text()


def test_real_tiles_leave_alone_where_that_is_asked_for(study):
    found = emit_dataset(study_of(_params(include=["real"])), Path("out"), SALT)
    assert {source for by_source in found["counts"].values() for source in by_source} == {"real"}


def test_variations_of_real_tiles_do_not_leave_alone(study):
    rows = keratin_rows(5, purpose="augment", request="varied", input_ref=["SLIDE-train_0_0", *[None] * 4])
    shutil.rmtree("data/synthetic/augment-00000")
    shutil.rmtree("data/verdicts/augment-00000")
    make_part("data/synthetic", "augment-00000", rows, tiles(5, 16, 9), SYNTHETIC_ROW)
    write_verdicts("data/verdicts/augment-00000", rows, [True] * 5)
    with pytest.raises(HistoloomError, match=r"1 synthetic tiles were begun from real ones .* \(varied\)"):
        emit_dataset(study_of(_params(include=["synthetic"])), Path("out"), SALT)
    emit_dataset(study_of(_params()), Path("both"), SALT)
