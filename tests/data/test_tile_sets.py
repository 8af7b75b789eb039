"""What is refused and what is said of sets of tiles, before any picture is read."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from histoloom.data.manifest import Manifest, check_manifest
from histoloom.errors import faults_among, lines_of, notes_among
from tests.build import write_csv
from tests.studies.tile_sets import CLASSES, FORMS, LABELS, PX, Tiles, encoded, params_of, write_set


def look(*sets: dict, **tile) -> tuple[Manifest, str, str]:
    """What is read, its faults and its notes."""
    manifest, found = check_manifest(params_of(*sets, **tile).tile)
    return manifest, "\n".join(lines_of(faults_among(found))), "\n".join(lines_of(notes_among(found)))


def stated_of(folder: Path, **arrays) -> dict:
    tiles = Tiles()
    given = {"images": tiles.images, "labels": np.array(tiles.labels), "patient_id": np.array(tiles.patients)} | arrays
    np.savez(folder / "in.npz", **{name: array for name, array in given.items() if array is not None})
    return {"path": "in.npz", "mpp": 1.0}


@pytest.mark.parametrize("form", FORMS)
def test_whole_sets_have_no_fault(folder, form):
    manifest, faults, _ = look(write_set(Tiles(), folder / "in", form))
    assert not faults and len(manifest.sets[0]) == 24
    assert {slide.patient_id for slide in manifest.stated} == {f"P{n}" for n in range(6)}


def test_an_unknown_label_is_named_with_its_count(folder):
    labels = np.array(["stroma"] * 20 + ["tumor"] * 3 + ["fat"])
    _, faults, _ = look(stated_of(folder, labels=labels))
    assert "unknown label 'tumor' of 3 tile(s). Remedy: did you mean 'tumour'?" in faults
    assert "unknown label 'fat' of 1 tile(s). Remedy: add it to tile.labels.classes" in faults


def test_labels_that_are_numbers_need_names(folder):
    numbers = np.arange(24) % 2
    _, faults, _ = look(stated_of(folder, labels=numbers))
    assert "unknown label '0' and '1' of 12 tile(s). Remedy: state label_names, from 0" in faults
    manifest, faults, _ = look(stated_of(folder, labels=numbers) | {"label_names": [*CLASSES]})
    assert not faults and manifest.sets[0].rows["label"].tolist() == Tiles().labels
    _, faults, _ = look(stated_of(folder, labels=numbers + 1) | {"label_names": [*CLASSES]})
    assert "labels have 2 names, and '2' is no number of one" in faults


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"mpp": None}, "24 picture(s) state no scale"),
        ({"mpp": 1.1}, "24 picture(s) are coarser (1.1 µm/px) than tile.mpp (1)"),
        (
            {"columns": {"slide_id": "slide"}},
            "columns names 'slide' as slide_id, which it hasn't. Remedy: its columns are",
        ),
        ({"columns": {"scanner": "labels"}}, "columns names 'scanner', which is no column of ours"),
        ({"values": {"split": "training"}}, "24 tile(s) are in the unknown split 'training'"),
        ({"values": {"dataset": "a b"}}, "'a b' can't name a data set"),
        ({"values": {"site": "NaN"}}, "'NaN' stands for a missing value"),
        ({"patterns": {"slide_id": "^(S.)"}}, "patterns.slide_id fits 24 of 24 names not: '0', '1', '2' and 21 more"),
        ({"path": "other.npz"}, "nothing lies there"),
        ({"path": "*.tar"}, "no file has such a name"),
        ({"format": "webdataset"}, "is no plain tar, or breaks off"),
        ({"columns": {"image": "pictures"}}, "in.npz has no array 'pictures'; it has images (24, 32, 32, 3) uint8"),
        ({"mask_values": {255: "fat"}}, "mask_values names 'fat' (255), which tile.masks.classes doesn't"),
    ],
)
def test_what_is_stated_wrongly_is_said(folder, changes, words):
    _, faults, _ = look(stated_of(folder) | changes)
    assert words in faults


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"images": np.zeros((24, 3, PX, PX), np.uint16)}, "'images' is (24, 3, 32, 32) of uint16, and pictures are"),
        (
            {"images": np.zeros((24, PX, PX, 3), np.float32)},
            "of float32, and pictures are (n, height, width, 3) of uint8",
        ),
        ({"images": np.zeros((24, PX, PX, 3), object)}, "without objects"),
        (
            {"masks": np.zeros((24, PX, 8), np.uint8)},
            "'masks' is (24, 32, 8) of uint8, and masks of these pictures are",
        ),
        (
            {"volumes": np.zeros((24, 4, PX, 8), np.uint8)},
            "'volumes' is (24, 4, 32, 8) of uint8, and volumes of these pictures are (24, depth, 32, 32)",
        ),
        ({"patient_id": np.array(["1-Mar"] * 24)}, "'1-Mar' is a date as spreadsheets make it of an id"),
        ({"slide_id": np.array(["one"] * 24)}, "1 slide(s) are of several patients: 'one'"),
        ({"tile_id": np.array(["t"] * 24)}, "1 id(s) are those of several tiles: 'in_t'"),
        ({"labels": np.array([""] * 24)}, "no tile has a label"),
        ({"mpp": np.array(["0,5"] * 24)}, "24 value(s) are no numbers: '0,5'"),
    ],
)
def test_what_arrays_hold_wrongly_is_said(folder, arrays, words):
    _, faults, _ = look(stated_of(folder, **arrays))
    assert words in faults


def test_a_column_of_numbers_may_be_called_volume(folder):
    assert not look(stated_of(folder, volume=np.arange(24.0)))[1]


def test_a_broken_file_is_said(folder):
    for form, ending in (("webdataset", "tar"), ("parquet", "parquet"), ("npz", "npz"), ("hdf5", "h5")):
        stated = write_set(Tiles(), folder / form, form)
        path = min((folder / form).glob(f"*.{ending}"))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        assert "breaks off" in (faults := look(stated)[1]) or "is no Parquet file" in faults, (form, faults)


def test_what_is_left_out_is_a_note(folder):
    labels = np.array(["stroma"] * 20 + [""] * 4)
    _, faults, notes = look(stated_of(folder, labels=labels, phase=np.array(["x"] * 24)))
    assert not faults and "4 tile(s) have no label and are left out" in notes
    assert "1 column(s) are not read: 'phase'" in notes
    slides = {"patient_id": None, "slide_id": np.array(Tiles().patients)}
    assert (
        "24 tiles state no patient: each of their 6 slides counts as a patient" in look(stated_of(folder, **slides))[2]
    )
    Path("pictures").mkdir()
    for name, image in zip(Tiles().names, Tiles().images):
        Path(f"pictures/{name}.png").write_bytes(encoded(image))
    Path("pictures/notes.txt").write_text("words")
    stated = {"path": "pictures", "mpp": 1.0, "patterns": {"patient_id": "^(P.)"}}
    _, faults, notes = look(stated, labels={"source": "none"})
    assert not faults and "1 file(s) are no pictures and are left out: 'notes.txt'" in notes


def test_masks_that_are_missing_are_a_fault_or_unknown(folder):
    stated = write_set(Tiles(), folder / "in", "image_folder")
    min(Path("in/masks").rglob("*.png")).unlink()
    masks = {"source": "raster", "classes": ["nucleus", "clear"]}
    assert "1 of 24 tiles have no mask, and tile.masks.source is raster" in look(stated, masks=masks)[1]
    _, faults, notes = look(stated, masks=masks, labels=LABELS | {"unlabelled": "keep"})
    assert not faults and "1 of 24 tiles have no mask, which counts as unknown" in notes


def test_a_table_beside_a_folder_is_read_and_held_against_it(folder):
    tiles = Tiles()
    stated = {"path": "in", "mpp": 1.0}
    Path("in").mkdir()
    rows = []
    for name, image, patient, label in zip(tiles.names, tiles.images, tiles.patients, tiles.labels):
        Path(f"in/{name}.png").write_bytes(encoded(image))
        rows.append({"file_name": f"{name}.png", "patient_id": patient, "label": label, "meta_age": "61"})
    write_csv("in/metadata.csv", rows)
    manifest, faults, notes = look(stated)
    assert not faults and not notes and json.loads(manifest.sets[0].rows["fields"][0]) == {"meta_age": "61"}
    write_csv("in/metadata.csv", [*rows[1:], rows[1] | {"file_name": "gone.png"}])
    _, faults, _ = look(stated)
    assert f"1 picture(s) have no row in in/metadata.csv: '{tiles.names[0]}.png'" in faults
    assert "in/metadata.csv names 1 picture(s) that aren't there: 'gone.png'" in faults


def test_paths_stay_under_their_root(folder):
    Path("in").mkdir()
    Path("out.png").write_bytes(encoded(Tiles().images[0]))
    Path("in/link.png").symlink_to(folder / "out.png")
    Path("in/real.png").write_bytes(encoded(Tiles().images[1]))
    rows = [
        {"path": path, "patient_id": f"P{n}"} for n, path in enumerate(("../out.png", "link.png", "no.png", "real.png"))
    ]
    write_csv("in/tiles.csv", rows)
    manifest, faults, _ = look({"path": "in/tiles.csv", "mpp": 1.0}, labels={"source": "none"})
    assert "leads out of in" in faults and "is a link" in faults and "there is no file 'no.png' under in" in faults
    assert manifest.sets[0].rows["name"].tolist() == ["real"]
    _, faults, _ = look({"path": "in", "mpp": 1.0, "values": {"slide_id": "a"}}, labels={"source": "none"})
    assert "1 link(s) are broken, lead to folders or lead out of it: 'link.png'" in faults


def test_a_tar_with_two_pictures_of_a_key_or_none_is_refused(folder):
    def write(members: list[str]) -> dict:
        with tarfile.open("in.tar", "w") as tar:
            for name in members:
                content = encoded(Tiles().images[0]) if name.endswith("g") else b"{}"
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return {"path": "in.tar", "mpp": 1.0, "values": {"patient_id": "p"}}

    none = {"labels": {"source": "none"}}
    assert "a.png is a second picture of its sample" in look(write(["a.jpg", "a.png"]), **none)[1]
    assert "1 sample(s) have no picture: 'b'" in look(write(["a.png", "b.json"]), **none)[1]


def test_a_parquet_of_other_than_pictures_is_refused(folder):
    pq.write_table(pa.table({"image": [[1, 2]], "patient_id": ["p"]}), "in.parquet")
    assert "column 'image' is list" in look({"path": "in.parquet", "mpp": 1.0})[1]
    pq.write_table(pa.table({"picture": [b"x"], "patient_id": ["p"]}), "in.parquet")
    assert "has no column 'image': it has picture (binary)" in look({"path": "in.parquet", "mpp": 1.0})[1]


def test_sets_beside_each_other_agree(folder):
    first, second = write_set(Tiles(), folder / "a", "npz"), write_set(Tiles(), folder / "b", "npz")
    with pytest.raises(ValidationError, match="sets names 'set' twice"):
        params_of(first, second)
    other = {"name": "other", "values": {"slide_id": "P0"}}
    assert "slide(s) are of several patients" in look(first, second | other)[1]
    held_out = {"name": "other", "values": {"split": "test"}}
    assert "a patient belongs to one split" in look(first, second | held_out)[1]


@pytest.mark.parametrize(
    "tile, words",
    [
        ({"sets": []}, "manifest is null, and sets names none"),
        ({"split": {"group": "region"}}, "tiles of sets lie on none"),
        ({"labels": {"source": "polygons", "classes": ["a"]}}, "labels.source is polygons, which is of slides"),
    ],
)
def test_params_that_sets_cannot_follow_are_refused(tile, words):
    with pytest.raises(ValidationError, match=words):
        params_of({"path": "in", "mpp": 1.0}, **tile)


@pytest.mark.parametrize(
    "stated, words",
    [
        ({"patterns": {"patient_id": "^P"}}, "has no group"),
        ({"patterns": {"patient_id": "("}}, "is no regular expression"),
        ({"values": {"label": "a"}, "columns": {"label": "b"}}, "stands in columns and in patterns or values"),
    ],
)
def test_a_set_s_params_are_checked(stated, words):
    with pytest.raises(ValidationError, match=words):
        params_of({"path": "in"} | stated)


def test_a_manifest_without_slides_is_not_taken_for_none(folder):
    stated = stated_of(folder)
    assert "set tile.manifest: null" in look(stated, manifest="manifests/slides.csv")[1]
    write_csv("slides.csv", [{"slide_id": "s", "path": "s.svs", "patient_id": "p"}])
    Path("slides.csv").write_text("slide_id,path,patient_id\n")
    assert "set tile.manifest: null" in look(stated, manifest="slides.csv")[1]


def test_captions_quote_what_a_set_has(folder):
    stated = stated_of(folder)
    assert "tile.caption quotes {organ}, which its tiles don't have" in look(stated, caption="{organ}, {label}")[1]
    assert not look(stated | {"values": {"organ": "skin"}}, caption="{organ}, {label}")[1]
    assert "24 caption(s) are empty, and tile.caption quotes them" in look(stated, caption="{caption}")[1]
