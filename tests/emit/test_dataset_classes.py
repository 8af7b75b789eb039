"""Classes of emitted sets: the same numbers in every split and format, whatever they are called, and whoever reads them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from histoloom.config import Params
from histoloom.config.file_names import class_folders
from histoloom.data.schema import SYNTHETIC_ROW
from histoloom.errors import HistoloomError
from histoloom.studies.emit import emit_dataset
from tests.build import make_part, tile_rows, tiles, write_verdicts
from tests.emit.test_emit import keratin_rows
from tests.stages import study_of

SALT = b"a salt for tests, sixteen and more"
NAMES = [
    ("keratin", "epidermis", "dermis"),
    ("dermis", "epidermis", "keratin"),
    ("Tumor: Positive", "a/b", "..", "../../etc", "CON", "x.", "é" * 60, "|"),
    tuple(f"class {n}" for n in range(12)),
    ("metadata.csv", "metadata.jsonl", "x"),
    ("Metadata.JSONL",),
]


def _params(classes, source="slide", **emit) -> Params:
    labels = {"source": source, "classes": classes}
    return Params.model_validate({"tile": {"mpp": 0.5, "tile_px": 16, "labels": labels}, "emit": emit})


def _study(labels: dict[str, list]) -> None:
    """A store whose slides, one a split, have tiles of these labels."""
    for seed, (split, named) in enumerate(labels.items()):
        rows = tile_rows(
            len(named), tile_id=[f"S-{split}_{n}_0" for n in range(len(named))], slide_id=f"S-{split}",
            patient_id=f"P-{split}", split_group=f"P-{split}", split=split, label=named, caption="c", mpp=0.5,
        )  # fmt: skip
        make_part("data/tiles", f"S-{split}", rows, tiles(len(named), 16, seed))


def _emit(params: Params, folder: Path) -> dict:
    """With one synthetic tile, which is to be measured and stays."""
    rows = keratin_rows(1, purpose="evaluate", label=None)
    make_part("data/synthetic", "evaluate-00000", rows, tiles(1, 16, 9), SYNTHETIC_ROW)
    Path("data/synthetic/lineage.json").write_text("{}")
    write_verdicts("data/verdicts/evaluate-00000", rows, [True])
    return emit_dataset(study_of(params), folder, SALT)


@pytest.mark.parametrize("classes", NAMES, ids=len)
def test_each_class_has_its_number_in_every_split_and_format(folder, classes):
    """Train has them all, val the last alone, test the first and a tile without label."""
    _study({"train": [*classes, *classes], "val": [classes[-1]] * 3, "test": [classes[0], None]})
    metrics = _emit(_params(classes), Path("out"))
    stated = json.loads(Path("out/classes.json").read_text())
    assert stated["classes"] == list(classes)
    for split, count in (("train", 2 * len(classes)), ("val", 3), ("test", 1)):
        read = ImageFolder(f"out/imagefolder/{split}", allow_empty=True)
        assert read.class_to_idx == {name: number for number, name in enumerate(stated["folders"])}
        lines = [json.loads(line) for line in Path(f"out/imagefolder/{split}/metadata.jsonl").read_text().splitlines()]
        assert len(read) == len(lines) == count
        by_name = {line["file_name"]: (line["cls"], line["label"]) for line in lines}
        for path, number in read.samples:
            assert by_name[Path(path).relative_to(read.root).as_posix()] == (number, classes[number])
        table = pq.read_table(f"out/parquet/{split}-00000.parquet")
        feature = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]
        assert feature == {"names": list(classes), "_type": "ClassLabel"}
        assert sorted(table["label"].to_pylist()) == sorted(read.targets)
        with tarfile.open(f"out/webdataset/{split}-00000.tar") as archive:
            rows = [json.load(archive.extractfile(m)) for m in archive if m.name.endswith(".json")]
        assert sorted(row["cls"] for row in rows) == sorted(read.targets)
        assert all(classes[row["cls"]] == row["label"] for row in rows)
    assert metrics["unlabelled_left_out"] == {"test": {"real": 1}}
    assert {p.parent.parent.parent.name for p in Path("out").rglob("*.png")} == {"imagefolder"}


def test_huggingface_reads_the_folders_and_the_class_labels(folder):
    from datasets import load_dataset

    _study({"train": ["b", "a"], "test": ["a", None]})
    _emit(_params(["b", "a", "rare"]), Path("out"))
    found = load_dataset("parquet", data_files={"test": "out/parquet/test-*.parquet"}, cache_dir="cache")["test"]
    assert found.features["label"].names == ["b", "a", "rare"] and found["label"] == [1]
    found = load_dataset("imagefolder", data_dir="out/imagefolder/test", cache_dir="cache")
    (split,) = found.values()
    assert split["label"] == ["a"] and split["cls"] == [1]


def test_folders_of_empty_classes_outlast_what_keeps_files_alone(folder):
    """DVC, git and archives of files: a folder without any would go, and the numbers with it."""
    _study({"train": ["b", "a"], "test": ["a"]})
    _emit(_params(["a", "b", "c"]), Path("out"))
    assert all(any(f.iterdir()) for f in Path("out/imagefolder").glob("*/*") if f.is_dir())
    assert sorted(f.name for f in Path("out/imagefolder/test").iterdir() if f.is_dir()) == ["a", "b", "c"]


@pytest.mark.parametrize("labels", [{"source": "none", "classes": ["a"]}, {"source": "none", "classes": []}])
def test_a_study_without_labels_emits_all_of_its_tiles_as_one_class(folder, labels):
    _study({"train": [None, None], "test": [None]})
    metrics = _emit(_params(labels["classes"], labels["source"]), Path("out"))
    assert json.loads(Path("out/classes.json").read_text()) == {"classes": ["unlabelled"], "folders": ["unlabelled"]}
    assert metrics["counts"] == {"train": {"real": {"unlabelled": 2}}, "test": {"real": {"unlabelled": 1}}}
    assert metrics["unlabelled_left_out"] == {}
    assert "The study has no labels" in Path("out/README.md").read_text()


def test_a_class_of_the_name_unlabelled_is_a_class(folder):
    _study({"train": ["unlabelled", None, "a"]})
    assert _emit(_params(["a", "unlabelled"]), Path("out"))["counts"] == {"train": {"real": {"a": 1, "unlabelled": 1}}}


def test_a_label_that_params_do_not_name_is_an_error(folder):
    _study({"train": ["a", None]})
    with pytest.raises(HistoloomError, match=r"labelled 'a', which tile\.labels\.classes does not name"):
        _emit(_params(["b"]), Path("out"))


def test_a_train_split_without_labels_is_an_error(folder):
    _study({"train": [None], "test": ["a"]})
    with pytest.raises(HistoloomError, match="No train tile has a label"):
        _emit(_params(["a"]), Path("out"))


def _snippets() -> dict[str, str]:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "train-on-a-dataset.md"
    return dict(re.findall(r"## (\w+)\n.*?```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))


@pytest.mark.parametrize("name", ["ImageFolder", "WebDataset", "Parquet"])
def test_the_documented_lines_run_as_written_on_splits_that_lack_a_class(folder, monkeypatch, name):
    monkeypatch.setenv("HF_HOME", str(folder / "cache"))
    _study({"train": ["b", "a"] * 2, "val": ["a"], "test": ["b", None]})
    _emit(_params(["b", "a", "rare"]), Path("data/dataset"))
    command = [sys.executable, "-W", "ignore", "-c", _snippets()[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and re.search(r"loss \d", done.stdout), done.stderr


_label = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=100)
_label = _label.filter(lambda name: name == name.strip())


@given(st.lists(_label, min_size=1, max_size=14, unique=True))
def test_folders_sort_as_the_classes_do_and_are_folders_anywhere(classes):
    folders = class_folders(classes)
    assert list(folders) == sorted(folders) and len({f.casefold() for f in folders}) == len(classes)
    for name in folders:
        assert name and not set(name) & set('/\\:*?"<>|') and name.strip(". ") == name.strip() == name
        assert len(name.encode()) <= 255 and name.split(".")[0].lower() not in ("con", "nul", "com1", "lpt9")


@given(st.lists(st.from_regex(r"[a-z][a-z0-9_-]{3,20}", fullmatch=True), min_size=1, max_size=14, unique=True))
def test_names_that_sort_so_and_can_be_folders_are_the_folders(classes):
    assert class_folders(sorted(classes)) == tuple(sorted(classes))


@pytest.mark.parametrize(
    "classes, said",
    [
        (["a", "A"], "'a' and 'A', which differ by case or Unicode form alone"),
        (["caf\u00e9", "cafe\u0301"], "differ by case or Unicode form alone"),
        (["a", "a"], "names 'a' twice"),
        ([" a"], "begins or ends with a blank"),
        ([""], "is empty"),
        (["a\nb"], "can't be printed"),
        (["x" * 101], "has 101 characters, and may have 100"),
    ],
)
def test_names_that_no_class_can_have_are_faults_of_params(classes, said):
    with pytest.raises(ValueError, match=said):
        _params(classes)


@pytest.mark.parametrize("key", ["name", "licence"])
@pytest.mark.parametrize("value", ["", " a", "a\n# b"])
def test_what_heads_the_card_is_one_line(key, value):
    with pytest.raises(ValueError, match=f"emit.{key}"):
        _params(["a"], **{key: value})


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a" * 101, "a\n"])
def test_names_of_requests_and_woven_slides_name_files(name):
    base = {"tile": {"mpp": 0.5, "labels": {"classes": ["x"]}}}
    for stated in (
        {"plan": {"requests": [{"name": name, "tiles": 1}]}},
        {"sample_slides": {"slides": [{"name": name, "width_px": 8, "height_px": 8}]}},
    ):
        with pytest.raises(ValueError, match="name"):
            Params.model_validate(base | stated)


def test_names_of_woven_slides_that_differ_by_case_alone_are_refused():
    slides = [{"name": name, "width_px": 8, "height_px": 8} for name in ("one", "One")]
    with pytest.raises(ValueError, match="'one' and 'One', which differ by case"):
        Params.model_validate({"tile": {"mpp": 0.5, "labels": {"classes": ["x"]}}, "sample_slides": {"slides": slides}})
