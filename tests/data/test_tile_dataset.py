"""A tile store as a torch Dataset, read in this process and by workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import histoloom
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tiles

LABELS = ["tumour", "stroma", None, "tumour", "stroma"]


@pytest.fixture
def store(tmp_path):
    """Two parts of five tiles."""
    rng = np.random.default_rng(0)
    for number in range(2):
        rows = tile_rows(5, label=LABELS, tile_id=[f"s{number}_{n}" for n in range(5)], split=["train"] * 4 + ["test"])
        masks = rng.integers(0, 3, (5, 16, 16)).astype(np.uint8)
        make_part(tmp_path / "store", f"slide-{number}", rows, tiles(5, seed=number), masks=masks)
    return histoloom.open_store(tmp_path / "store")


def test_an_item_is_its_row_s_tile_mask_and_class_number(store):
    rows = store.rows(split="train").dropna(subset="label").sample(frac=1, random_state=1)
    data = histoloom.TileDataset(store.folder, rows, classes=["stroma", "tumour"], mask=True)
    assert len(data) == 6 and data.rows["tile_id"].tolist() == rows["tile_id"].tolist()
    images, masks = store.read(rows), store.read(rows, "mask")
    for number, item in enumerate(data):
        assert (item["image"].permute(1, 2, 0).numpy() == images[number]).all() and item["image"].dtype == torch.uint8
        assert (item["mask"].numpy() == masks[number]).all() and item["row"] == number
        assert ["stroma", "tumour"][item["label"]] == rows["label"].iloc[number]
    assert (data[-1]["image"] == data[5]["image"]).all()
    with pytest.raises(IndexError, match="there are 6"):
        data[6]


def test_transforms_turn_image_and_mask_alike(store):
    plain = histoloom.TileDataset(store, mask=True)
    turned = histoloom.TileDataset(
        store, mask=True, transform=v2.Compose([v2.RandomHorizontalFlip(1.0), v2.ToDtype(torch.float32, scale=True)])
    )
    assert (turned[3]["mask"] == plain[3]["mask"].flip(-1)).all() and turned[3]["mask"].dtype == torch.uint8
    assert torch.allclose(turned[3]["image"], plain[3]["image"].flip(-1) / 255)


@pytest.mark.long
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_this_process_reads(store, start):
    data = histoloom.TileDataset(store, store.rows().dropna(subset="label"), classes=["tumour", "stroma"], mask=True)
    here = [data[n] for n in range(len(data))]  # the store is open when workers start
    loader = torch.utils.data.DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context=start)
    batches = [*loader, *loader]
    assert [len(batch["label"]) for batch in batches] == [3, 3, 2] * 2
    for name in ("image", "mask", "label", "row"):
        found = torch.cat([batch[name] for batch in batches[:3]])
        assert (found == torch.stack([torch.as_tensor(item[name]) for item in here])).all()


def test_rows_without_a_class_or_a_place_are_refused(store, tmp_path):
    with pytest.raises(HistoloomError, match="2 of 10 rows have no label among tumour, stroma; the first has no label"):
        histoloom.TileDataset(store, classes=["tumour", "stroma"])
    with pytest.raises(HistoloomError, match="the label 'stroma'"):
        histoloom.TileDataset(store, store.rows().dropna(subset="label"), classes=["tumour"])
    with pytest.raises(HistoloomError, match="lacks the column 'index'"):
        histoloom.TileDataset(store, store.rows().drop(columns="index"))
    make_part(tmp_path / "bare", "slide", tile_rows(1), tiles(1))
    with pytest.raises(HistoloomError, match="has no masks"):
        histoloom.TileDataset(tmp_path / "bare", mask=True)
