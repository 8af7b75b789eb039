"""Every target: data of the stated shape, and the arrays back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from histoloom.conditions.symmetries import apply_symmetry
from histoloom.config import TrainAutoencoder
from histoloom.config.package import TARGET_FACTS
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.registry import PLACES, registered
from histoloom.targets.autoencoder import build_autoencoder
from histoloom.targets.instances import Instances, depths
from histoloom.targets.latents import save_latent_scale
from histoloom.targets.masks import Masks
from histoloom.targets.pixels import Pixels
from histoloom.targets.target import Raster, Target
from histoloom.targets.volumes import Volumes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

RNG = np.random.default_rng(0)
DISCS = np.zeros((3, 32, 32), np.int32)
for number, (row, column) in enumerate([(8, 8), (8, 17), (22, 20)], 1):
    DISCS[:, np.hypot(*np.ogrid[-row : 32 - row, -column : 32 - column]) < 5] = 70_000 + number
ARRAYS = {
    "image": RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8),
    "mask": (DISCS > 0).astype(np.uint8),
    "instance": DISCS,
    "volume": RNG.integers(0, 256, (3, 4, 32, 32), dtype=np.uint8),
    "label": np.eye(3, 5, dtype=np.float32),
}
STATED = {
    "masks": {"classes": 2, "factor": 1, "coding": "one_hot"},
    "instances": {"classes": 1, "factor": 1, "coding": "bits"},
    "vectors": {"condition": "label"},
    "volumes": {"factor": 2},
}


@pytest.fixture(params=sorted(PLACES["target"]))
def target(request, tmp_path) -> Target:
    if request.param == "latents":
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            build_autoencoder(TrainAutoencoder(channels=16)).save_pretrained(tmp_path)
        save_latent_scale(tmp_path, torch.zeros(4), torch.ones(4))
    elif request.param in STATED:
        write_json(tmp_path / TARGET_FACTS, STATED[request.param])
    return registered("target", request.param).load(tmp_path, "cpu")


def test_data_has_the_stated_shape_and_gives_the_stated_arrays(target):
    data = target.encode(ARRAYS)
    assert len(data) == 3 and data.dtype == torch.float32 and data.device.type == "cpu"
    if isinstance(target, Raster):
        assert data.shape == (3, target.channels, 32 // target.factor, 32 // target.factor)
    assert target.bound is None or data.abs().max() <= target.bound
    found = target.decode(data)
    assert {*found} == {*target.makes} and {*target.reads} <= {*found}
    for name, values in found.items():
        before = ARRAYS["label" if name == "vector" else name] if name != "edge" else ARRAYS["mask"]
        assert values.shape == before.shape and values.dtype == before.dtype


def test_what_loses_nothing_gives_it_back_to_the_bit(target):
    if type(target).__name__ in ("Latents", "Instances"):
        return
    found = target.decode(target.encode(ARRAYS))
    for name, values in found.items():
        assert (values == ARRAYS["label" if name == "vector" else name]).all()


def test_no_pixel_beyond_its_reach_shows(target):
    if not isinstance(target, Raster) or target.reads != ("image",):
        return
    data = target.encode({"image": ARRAYS["image"][:1]})
    changed = data.clone()
    changed[..., 0] += 5
    differs = (target.decode(data)["image"] != target.decode(changed)["image"]).any((0, 1, 3))
    assert differs.any() and not differs[(target.reach + 1) * target.factor :].any()


def test_nuclei_that_touch_are_told_apart_again():
    target = Instances(1)
    found = target.decode(target.encode(ARRAYS))
    assert (found["mask"] == ARRAYS["mask"]).all()
    for before, after in zip(DISCS, found["instance"]):
        numbers = {int(number) for number in np.unique(before[before > 0])}
        assert len(np.unique(after[after > 0])) == len(numbers)
        for number in numbers:
            inside = after[before == number]
            assert (inside == np.bincount(inside).argmax()).mean() > 0.95
    assert found["edge"].any() and not found["edge"][found["instance"] == 0].any()


def test_depth_is_one_in_the_middle_and_nothing_outside():
    depth = depths(DISCS[0])
    assert (depth[DISCS[0] == 0] == 0).all() and {depth[8, 8], depth[22, 20]} == {1.0}


@given(st.integers(1, 20), st.sampled_from(["one_hot", "bits"]), st.sampled_from([1, 2, 4]), st.integers(0, 2**31))
def test_masks_of_whole_cells_come_back(classes, coding, factor, seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, classes + 1, (2, 4, 4), dtype=np.uint8).repeat(factor, 1).repeat(factor, 2)
    target = Masks(classes, factor, coding)
    data = target.encode({"mask": mask})
    assert data.shape == (2, target.channels, 4, 4) and {*data.unique().tolist()} <= {-1.0, 1.0}
    noisy = data + 0.4 * torch.from_numpy(rng.uniform(-1, 1, data.shape)).float()
    assert (target.decode(noisy)["mask"] == mask).all()


def test_a_cell_is_the_class_that_most_of_it_shows():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :2, :2] = [[2, 1], [2, 0]]
    assert Masks(2, 2).decode(Masks(2, 2).encode({"mask": mask}))["mask"][0, :2, :2].tolist() == [[2, 2], [2, 2]]


def test_coarse_pixels_keep_the_mean():
    flat = np.full((1, 16, 16, 3), 90, np.uint8)
    assert (Pixels(4).decode(Pixels(4).encode({"image": flat}))["image"] == 90).all()
    data = Pixels(4).encode(ARRAYS)
    means = ARRAYS["image"].reshape(3, 8, 4, 8, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.abs(data.numpy() - means).max() < 1e-5


@given(st.integers(0, 99), st.integers(2, 9), st.sampled_from([1, 2]))
def test_small_islands_go_and_nothing_else_changes(seed, least_px, factor):
    rng = np.random.default_rng(seed)
    ids = (rng.random((2, 12, 12)) * 3).astype(np.uint8)
    target = Masks(2, factor, least_px=least_px)
    whole = ids.repeat(factor, 1).repeat(factor, 2)
    found = target.decode(target.encode({"mask": whole}))["mask"]
    kept = found > 0
    assert (found[kept] == whole[kept]).all()
    for before, after in zip(whole, found):
        for of_class in (1, 2):
            islands, count = label(before == of_class)
            for number in range(1, count + 1):
                own = islands == number
                inside = not own[[0, -1]].any() and not own[:, [0, -1]].any()
                assert (after[own] == 0).all() == (inside and own.sum() < least_px)


def test_a_canvas_s_tile_is_cleaned_as_the_whole_is():
    """Read with the target's reach around it, a box has the islands that it has in the whole."""
    ids = (np.random.default_rng(3).random((1, 40, 40)) * 2).astype(np.uint8)
    target = Masks(1, least_px=6)
    data, reach = target.encode({"mask": ids}), target.reach
    whole = target.decode(data)["mask"][0]
    for top, left in ((10, 10), (17, 12)):
        around = data[:, :, top - reach : top + 9 + reach, left - reach : left + 9 + reach]
        own = target.decode(around)["mask"][0][reach:-reach, reach:-reach]
        assert (own == whole[top : top + 9, left : left + 9]).all()


def test_a_volume_is_turned_as_its_maps_are():
    """Symmetries turn each section, and no section changes places with another."""
    volumes = ARRAYS["volume"]
    turned = apply_symmetry(volumes, 5, registered("target", "volumes").rows_axis)
    for number in range(volumes.shape[1]):
        assert (turned[:, number] == apply_symmetry(volumes[:, number], 5)).all()


def test_a_place_of_volumes_holds_its_voxels_as_channels():
    target = Volumes(2)
    data = target.encode(ARRAYS)
    assert data.shape == (3, 8, 2, 16, 16)
    block = ARRAYS["volume"][0, 2:4, 6:8, 10:12]
    assert torch.allclose(data[0, :, 1, 3, 5], torch.from_numpy(block.ravel() / 127.5 - 1).float())
    with pytest.raises(HistoloomError, match=r"must be multiples of train_denoiser\.target"):
        Volumes(3).encode(ARRAYS)
