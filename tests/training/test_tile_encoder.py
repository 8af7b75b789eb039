"""An encoder of tiles is trained without labels: it tells tiles apart, resumes exactly, says whom it saw, and loads alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from histoloom.conditions.condition import FitJob, Source
from histoloom.conditions.image import ImageCondition
from histoloom.conditions.tile_encoder import EncoderSizes, TileEncoder, as_extractor, fitted_encoder, load_tile_encoder
from histoloom.config.train_encoders import ImageTower
from histoloom.data.lineage import read_lineage
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.training.embedding_measures import (
    alignment,
    effective_rank,
    measure_embedding,
    neighbour_agreement,
    uniformity,
    unit,
)
from histoloom.training.fit_condition import fit_image
from histoloom.training.run import TrainingRun, step_generator
from histoloom.training.tile_encoder import train_tile_encoder
from histoloom.training.views import side_before, view
from tests.build import STAINS, make_part, make_study, tile_rows

PX = 32
TINY = ImageTower(source="train", image_px=PX, width=8, size=16, steps=6, batch_size=16)


def drawn(count, seed=0):
    """Six kinds of tissue in turn: three mixtures of the stains, even or grained."""
    mixtures, out = ((0.7, 0.05), (0.3, 0.3), (0.05, 0.6)), []
    for n in range(count):
        rng = np.random.default_rng(seed + n)
        amounts = np.array(mixtures[n % 3]) * rng.uniform(0.8, 1.2, 2)
        grains = gaussian_filter(rng.standard_normal((PX, PX)), 1.2) > 0.1 if n // 3 % 2 else np.full((PX, PX), 0.5)
        density = grains[..., None] * 1.4 * amounts @ STAINS
        out.append(np.clip(245 * 10**-density + rng.normal(0, 2, (PX, PX, 3)), 0, 255).astype(np.uint8))
    return np.stack(out)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TileStore:
    """Two train slides of two patients and one of val, each with tiles of two labels."""
    folder = tmp_path_factory.mktemp("store")
    for number, split in enumerate(("train", "train", "val")):
        labels = ["stroma", "tumour"] * 12
        who = {"slide_id": f"s{number}", "patient_id": f"p{number}", "split_group": f"p{number}", "split": split}
        make_part(folder, f"s{number}", tile_rows(24, label=labels, **who), drawn(24, 100 * number))
    return TileStore(folder)


def train_of(store: TileStore):
    rows = store.rows()
    return rows[rows["split"] == "train"].reset_index(drop=True)


def run_of(folder: Path, config: ImageTower, every: int = 1000) -> TrainingRun:
    return TrainingRun("image", config.steps, config.learning_rate, 0, folder, every, warmup_steps=2)


def job_of(folder: Path, store: TileStore, **image) -> FitJob:
    stated = {"source": "train", "image_px": PX, "width": 8, "size": 16, "steps": 6, "batch_size": 16} | image
    params = make_study(folder, [], train_denoiser={"conditions": ["image"]}, train_encoders={"image": stated})
    out = folder / "models/encoders"
    return FitJob(params, store, train_of(store), "cpu", out, folder / "checkpoints", folder / "curves")


@pytest.fixture(scope="module")
def fitted(store, tmp_path_factory):
    job = job_of(tmp_path_factory.mktemp("fitted"), store)
    found = fit_image(job)
    found.lineage.save(job.folder)
    return job, found


def nearness(store: TileStore, folder: Path, config: ImageTower) -> float:
    """By how much the cosine of two views of a tile is above that of tiles of two kinds."""
    rows = train_of(store)
    model = train_tile_encoder(config, store, rows, run_of(folder, config))
    tiles = torch.from_numpy(store.read(rows)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        first, second = (model(view(tiles, PX, step_generator(7, n))).numpy() for n in (0, 1))
    both = np.concatenate([first, second])
    assert effective_rank(both) > 2
    first, second = (unit(of, both.mean(0), both.std(0)) for of in (first, second))
    cosines, kinds = first @ second.T, np.arange(len(rows)) % 6
    return float(np.diag(cosines).mean() - cosines[kinds[:, None] != kinds].mean())


@pytest.mark.parametrize("method", ["simclr", "vicreg", "barlow_twins"])
def test_views_of_a_tile_come_nearer_than_those_of_two(store, tmp_path, method):
    config = TINY.model_copy(update={"steps": 200, "method": method})
    untrained = config.model_copy(update={"steps": 1, "learning_rate": 1e-9})
    before, after = (nearness(store, tmp_path / name, of) for name, of in (("a", untrained), ("b", config)))
    assert after > 0.5 and after > before + 0.05


def test_a_resumed_training_ends_with_the_same_weights(store, tmp_path):
    whole = train_tile_encoder(TINY, store, train_of(store), run_of(tmp_path / "whole", TINY))
    run = run_of(tmp_path / "broken", TINY, every=4)

    def breaks(step: int, _: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # at the log of the last step, after the checkpoint of the fourth
        train_tile_encoder(TINY, store, train_of(store), replace(run, log=breaks, history=[]))
    assert [path.name for path in (tmp_path / "broken").glob("step-*")] == ["step-0000004"]
    resumed = train_tile_encoder(TINY, store, train_of(store), run)
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_fit_says_whom_it_saw_and_how_good_it_is(fitted):
    job, found = fitted
    lineage = read_lineage(job.folder)
    assert lineage.groups == ("p0", "p1") and lineage.slides == ("s0", "s1") and not lineage.unknown
    assert found.facts == {"source": "image"}
    metrics = found.metrics
    assert metrics["tiles"] == 24 and metrics["size"] == 16 and np.isfinite(metrics["loss"])
    assert 0 < metrics["effective_rank"] <= 16 and metrics["alignment"] >= 0 >= metrics["uniformity"]
    neighbours = metrics["neighbours"]
    assert neighbours["tiles"] == 24 and neighbours["by_chance"] == 0.5
    assert 0 <= neighbours["neighbour"] <= 1 and 0 <= neighbours["of_efficientnet_lite0"] <= 1
    assert list((job.curves / "image").rglob("loss.tsv"))


def test_the_condition_is_the_trained_encoder_s_standardised_embedding(fitted, store):
    job, found = fitted
    condition = ImageCondition.load(Source((), 4, job.folder, found.facts))
    assert condition.size == 17 and condition.channels[-1] == "given"
    rows = job.rows
    values = condition.arrays(rows, lambda name: store.read(rows, name))["image"]
    assert values.shape == (48, 17) and (values[:, -1] == 1).all()
    np.testing.assert_allclose(values[:, :-1].mean(0), 0, atol=1e-3)
    np.testing.assert_array_less(values[:, :-1].std(0), 1.01)
    again = ImageCondition.load(Source((), 4, job.folder, found.facts)).arrays(
        rows, lambda name: store.read(rows, name)
    )
    np.testing.assert_array_equal(values, again["image"])


def test_no_training_library_is_needed_to_load_it(fitted):
    job, _ = fitted
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from histoloom.conditions.tile_encoder import load_as_extractor\n"
        f"load_as_extractor(Path({str(job.folder / 'image')!r}), 'cpu')\n"
        "assert 'lightly' not in sys.modules and 'histoloom.training' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_GRADIENTS = """
import torch
from histoloom.conditions.tile_encoder import EncoderSizes, TileEncoder
from histoloom.config.train_encoders import ImageTower

torch.set_num_threads(1)
least = ImageTower.model_fields["width"].metadata[0].ge
model = TileEncoder(EncoderSizes(32, least, 16)).to(memory_format=torch.channels_last)
tiles = torch.rand(16, 3, 32, 32)

def gradients(tiles, **flags):
    model.zero_grad()
    with torch.backends.mkldnn.flags(**flags):
        model(tiles).square().sum().backward()
    return [p.grad for p in model.parameters()]

for exact, own in zip(gradients(tiles, enabled=False), gradients(tiles.contiguous(memory_format=torch.channels_last), enabled=True)):
    torch.testing.assert_close(own, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())
"""


def test_gradients_of_the_narrowest_encoder_are_right_on_a_cpu_without_avx_512():
    with pytest.raises(ValueError, match="greater than or equal to 8"):
        ImageTower(source="train", width=7)
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", _GRADIENTS], capture_output=True, text=True, env=env, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_study_takes_the_encoder_as_it_is(fitted, store, tmp_path):
    job, _ = fitted
    source = str(job.folder / "image")
    other = fit_image(job_of(tmp_path, store, source=source))
    assert other.lineage == read_lineage(job.folder) and "loss" not in other.metrics
    mine, theirs = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "models/encoders/image", Path(source))
    )
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_encoder_in_half_precision_loads_in_full(fitted, tmp_path):
    job, _ = fitted
    state = load_file(job.folder / "image/model.safetensors")
    save_file(
        {k: t.half() if t.dtype == torch.float32 else t for k, t in state.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text((job.folder / "image/config.json").read_text())
    loaded = load_tile_encoder(tmp_path)
    assert loaded.mean.dtype == np.float32 and next(loaded.model.parameters()).dtype == torch.float32


def test_a_tower_from_elsewhere_is_fitted_as_before(store, tmp_path):
    found = fit_image(job_of(tmp_path, store, source="efficientnet-lite0"))
    assert found.facts["source"] == "efficientnet-lite0" and found.metrics == {} and not found.lineage.groups
    assert not (tmp_path / "models/encoders/image").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "config.json").write_text(json.dumps({"image_px": PX, "width": 16, "size": 16})),
    ],
)
def test_a_damaged_encoder_is_said(fitted, tmp_path, damage):
    job, _ = fitted
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((job.folder / "image" / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(HistoloomError, match=r"holds no encoder of tiles.*set it to train"):
        load_tile_encoder(tmp_path)


def test_too_few_tiles_are_refused(store, tmp_path):
    with pytest.raises(HistoloomError, match=r"the train split has 5; it needs 8"):
        train_tile_encoder(TINY, store, train_of(store).head(5), run_of(tmp_path, TINY))


def test_a_collapse_is_said(store, capsys):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = TileEncoder(EncoderSizes(PX, 4, 16))
    last = list(model.network.layer4[-1].parameters())
    for parameter in [*last, *model.network.layer4[0].parameters()]:
        torch.nn.init.zeros_(parameter)
    features = as_extractor(model, "cpu").features(store.read(train_of(store)))
    found = measure_embedding(fitted_encoder(model, features), store, train_of(store), 0, "cpu")
    assert found["effective_rank"] == 0 and found["uniformity"] == pytest.approx(0, abs=1e-6)
    assert "the embedding has collapsed: of 16 channels the effective rank is 0.0" in " ".join(
        capsys.readouterr().err.split()
    )


@given(st.integers(0, 99), st.sampled_from([16, 24, 48]), st.sampled_from([16, 32]))
def test_views_are_pictures_and_follow_from_their_generator(seed, tile_px, side):
    before = side_before(side, tile_px)
    tiles = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 3, before, before), dtype=np.uint8))
    one, two = (view(tiles, side, step_generator(seed, 0)) for _ in range(2))
    assert one.shape == (3, 3, side, side) and torch.equal(one, two) and one.min() >= 0 and one.max() <= 1
    assert before <= 1.5 * side and before <= tile_px


def test_glass_stays_glass_and_stains_keep_their_hue():
    glass = torch.full((8, 3, 24, 24), 255, dtype=torch.uint8)
    shown = view(glass, 16, step_generator(0, 0))
    assert (shown.amax(1) - shown.amin(1)).max() < 0.01, "no colour comes onto glass"
    dark = torch.tensor([90, 50, 130], dtype=torch.uint8)[None, :, None, None].expand(8, 3, 24, 24)
    shown = view(dark, 16, step_generator(0, 0)).mean((2, 3))
    assert (shown[:, 1] < shown[:, 0]).all() and (shown[:, 1] < shown[:, 2]).all(), "haematoxylin stays purple"


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_effective_rank_of_equal_axes_is_their_number(rank, seed):
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((40, 40)))[0][:, :rank]
    centred = axes - axes.mean(0)
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    assert effective_rank(left @ right) == pytest.approx(rank)
    assert effective_rank(np.full((9, 4), 3.0)) == 0


@given(st.integers(0, 99))
def test_alignment_and_uniformity_have_the_bounds_of_their_paper(seed):
    points = unit(np.random.default_rng(seed).standard_normal((30, 5)), np.zeros(5), np.ones(5))
    assert alignment(points, points) == pytest.approx(0) and alignment(points, -points) == pytest.approx(4)
    assert -8 <= uniformity(points) < 0 and uniformity(points[:1].repeat(9, 0)) == pytest.approx(0)


def test_neighbours_are_of_other_slides_and_of_labels_that_are_known():
    known = tile_rows(4, label=["a", "b", "b", None], slide_id=["s0", "s1", "s1", "s1"])
    asked = tile_rows(3, label=["a", "b", None], slide_id=["s0", "s9", "s9"])
    axes = np.eye(4)
    found = neighbour_agreement(axes[[0, 1, 2]], asked, axes, known)
    # The first finds b in another slide, the second itself; the third has no label.
    assert found == {"tiles": 2, "neighbour": 0.5, "by_chance": pytest.approx((0 + 2 / 3) / 2)}
    assert neighbour_agreement(axes[:1], asked[:1], axes[:1], known[:1]) == {}
