"""A study that is trained on another machine travels in pieces and comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.offline import put_back, write_trained
from benchmarks.pieces import BEGUN, INDEX, open_pieces, pack_study, unpack_study
from histoloom.data.commit import commit_part, hash_tree
from histoloom.data.lineage import Lineage
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from tests.build import make_part, make_study, tile_rows, tiles

MASKS = {"masks": {"source": "raster", "classes": ["nucleus", "clear"]}}


@pytest.fixture
def study(tmp_path) -> Study:
    """Two parts of tiles with masks: one of train and test tiles, one of test tiles alone."""
    root = tmp_path / "study"
    make_study(root, [], MASKS, train_denoiser={"conditions": ["label", "mask"]})
    for part, splits in (("a", ["train", "test", "train", "val", "train"]), ("b", ["test", "test"])):
        rows = tile_rows(len(splits), split=splits)
        masks = np.random.default_rng(0).integers(0, 3, (len(splits), 16, 16)).astype(np.uint8)
        make_part(root / "data/tiles", part, rows, tiles(len(splits)), masks=masks)
    return Study(root)


def test_what_training_reads_comes_back_bit_for_bit_and_test_tiles_stay_at_home(study, tmp_path):
    done = pack_study(study, tmp_path / "pieces", 3000, models=False)
    assert done["pieces"] > 1 and done["tiles"] == 4
    assert all(path.stat().st_size <= 3000 for path in (tmp_path / "pieces").glob("piece-*"))
    unpack_study(tmp_path / "pieces", tmp_path / "there", 1)
    here, there = TileStore(study.tiles), TileStore(tmp_path / "there/data/tiles")
    rows = here.rows()
    assert rows.equals(there.rows()) and hash_tree(here.folder) == hash_tree(there.folder)
    tested = rows["split"] == "test"
    for name in ("image", "mask"):
        assert np.array_equal(here.read(rows[~tested], name), there.read(rows[~tested], name))
        assert here.read(rows[tested], name).any() and not there.read(rows[tested], name).any()
    assert (tmp_path / "there/params.yaml").read_bytes() == (study.root / "params.yaml").read_bytes()


def test_a_piece_that_is_missing_or_changed_is_named(study, tmp_path):
    pack_study(study, tmp_path / "pieces", 3000, models=False)
    first, second = tmp_path / "pieces/piece-001", tmp_path / "pieces/piece-002"
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.unlink()
    with pytest.raises(HistoloomError, match="piece-001, piece-002"):
        open_pieces(tmp_path / "pieces", tmp_path / "there")
    (tmp_path / "pieces" / INDEX).unlink()
    with pytest.raises(HistoloomError, match=INDEX):
        open_pieces(tmp_path / "pieces", tmp_path / "there")


def test_what_was_trained_comes_back_whole_and_a_training_that_is_not_over_without_its_optimiser(study, tmp_path):
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    study.encoders.mkdir(parents=True)
    save_file({"w": weights}, study.encoders / "w.safetensors")
    Lineage(("patient",), ("slide",)).save(study.encoders)
    state = {"model/w": weights, "average/w": weights * 1e6, "optimiser/0/exp_avg": weights.clone()}

    def checkpoint(folder):
        save_file(state, folder / "state.safetensors")
        (folder / "run.json").write_text(json.dumps({"step": 20}))

    for step in (10, 20):
        commit_part(study.work("train_autoencoder") / "0a/checkpoints", f"step-{step:07d}", checkpoint)
    steps = write_trained(study, "train_autoencoder", tmp_path / "back", 5000)
    assert steps == {"train_autoencoder/checkpoints": 20}
    assert len([*(tmp_path / "back").glob("piece-*")]) > 4
    before = {path.name: path.read_bytes() for path in study.encoders.iterdir()}
    (study.encoders / "w.safetensors").unlink()
    put = put_back(tmp_path / "back", study)
    assert put == {"put": ["models/encoders"], "stopped_in": "train_autoencoder", "steps": steps}
    assert {path.name: path.read_bytes() for path in study.encoders.iterdir()} == before
    came = load_file(study.root / BEGUN / "train_autoencoder/checkpoints/step-0000020/state.safetensors")
    assert sorted(came) == ["average/w", "model/w"]
    assert came["model/w"].dtype == torch.float16 and torch.equal(came["model/w"], weights.half())
    assert torch.equal(came["average/w"], weights * 1e6)  # too large for halves


def test_what_was_trained_on_other_tiles_is_refused(study, tmp_path):
    write_trained(study, None, tmp_path / "back", 5000)
    make_part(study.tiles, "c", tile_rows(1), tiles(1))
    with pytest.raises(HistoloomError, match="other tiles"):
        put_back(tmp_path / "back", study)
