"""The canvas: window layouts, solvers, blocks, and that nothing but the canvas decides its bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.canvas import torus
from histoloom.canvas.blocks import BlockGrid, CanvasPlan, block_grid
from histoloom.canvas.condition_grid import ConditionGrid
from histoloom.canvas.weaving import CanvasJob, Latents, run_canvas, weave_in_memory
from histoloom.canvas.window_layouts import Lattice, make_window_layout
from histoloom.cluster import one_thread, open_pool
from histoloom.conditions.batch import Conditions
from histoloom.config import Cluster
from histoloom.data.commit import hash_tree
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError
from histoloom.process.predictor import Given
from histoloom.process.sampler import sample
from tests.canvas.canvases import BACKGROUND, CHANNELS, WINDOW, Load, load_canvas, state_canvas

pytestmark = pytest.mark.long

HEIGHT, WIDTH, HALO = 56, 84, 1
BLOCKS = block_grid(HEIGHT, WIDTH, WINDOW - 2 * HALO, 28, WINDOW)


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def plan_of(blocks: BlockGrid = BLOCKS, layout=None, begin: int = 0, end: int = 4) -> CanvasPlan:
    return CanvasPlan(3, layout or Lattice(WINDOW, (HALO,)), blocks, CHANNELS, begin, end)


@given(
    name=st.sampled_from(["lattice", "independent", "random", "stride"]),
    window=st.integers(4, 12),
    halo=st.integers(0, 1),
    height=st.integers(12, 40),
    width=st.integers(12, 40),
    step=st.integers(0, 3),
)
@settings(deadline=None, max_examples=80)
def test_a_pixels_weights_add_to_one(name, window, halo, height, width, step):
    layout = make_window_layout(name, window, (halo,))
    windows = layout.windows(step, height, width, np.random.default_rng(step))
    total, inset = np.zeros((height, width)), layout.inset(step)
    for (top, left), weight in zip(windows.corners, windows.weight):
        rows, columns = (top - inset + np.arange(window)) % height, (left - inset + np.arange(window)) % width
        total[np.ix_(rows, columns)] += weight
        assert top + window <= height + layout.reach(step) and left + window <= width + layout.reach(step)
    assert np.allclose(total, 1)


@pytest.mark.parametrize("halo, cost", [(0, 1.0), (2, (64 / 60) ** 2), (4, (64 / 56) ** 2)])
def test_a_lattice_costs_what_its_windows_cover(halo, cost):
    layout, side = Lattice(64, (halo,)), (64 - 2 * halo) * 6
    count = len(layout.windows(0, side, side, np.random.default_rng(0)).corners)
    assert count * 64**2 / side**2 == pytest.approx(cost)


@given(st.data(), st.integers(1, 200), st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_noise_depends_on_its_place_alone(data, height, width):
    canvas = (height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    whole = torus.noise_field(1, 2, PixelBox(0, 0, width, height), canvas)
    box = torus.noise_field(1, 2, PixelBox(left, top, columns, rows), canvas)
    wrapped = np.roll(whole, (-top, -left), (1, 2))[:, :rows, :columns]
    assert np.array_equal(box, wrapped)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(4, 16), st.integers(0, 2), st.integers(8, 96))
def test_blocks_fill_the_canvas_and_are_no_smaller_than_a_window(height, width, window, halo, block):
    cell = window - 2 * min(halo, window // 4)
    blocks = block_grid(height, width, cell, block, window)
    assert all(side >= window for side in (*blocks.heights, *blocks.widths))
    assert all(side % cell == 0 for side in (*blocks.heights[:-1], *blocks.widths[:-1]))
    for length, sides in ((height, blocks.heights), (width, blocks.widths)):
        assert length <= sum(sides) < max(length, window) + 2 * cell
        assert sum(sides) == length or sides[-1] - (sum(sides) - length) < window


def test_one_window_alone_is_what_the_tile_sampler_makes(tmp_path):
    canvas = state_canvas(tmp_path / "c", WINDOW, WINDOW)
    denoiser, inputs = load_canvas(canvas, "ddim", batch_size=1)
    blocks, whole = BlockGrid((WINDOW,), (WINDOW,)), PixelBox(0, 0, WINDOW, WINDOW)
    woven = weave_in_memory(plan_of(blocks, make_window_layout("independent", WINDOW, ())), denoiser, inputs)
    noise = torch.from_numpy(torus.noise_field(3, CHANNELS, whole, blocks.canvas))[None]
    given_ = inputs.region(whole).conditions(np.zeros((1, 2), int), WINDOW)

    tile = sample(denoiser.predictor, denoiser.solver, noise, Given(given_, denoiser.nulls))[0].numpy()
    assert np.allclose(woven, tile, atol=1e-4)


def test_the_blocks_size_changes_nothing(tmp_path):
    denoiser, inputs = load_canvas(state_canvas(tmp_path / "c", HEIGHT, WIDTH))
    cell = WINDOW - 2 * HALO
    woven = [
        weave_in_memory(plan_of(block_grid(HEIGHT, WIDTH, cell, block, WINDOW)), denoiser, inputs)
        for block in (28, 42, 84)
    ]
    assert np.array_equal(woven[0], woven[1]) and np.array_equal(woven[0], woven[2])


def run(folder: Path, canvas: Path, workers: int, every: int = 2) -> np.ndarray:
    job = CanvasJob(plan_of(), Load(canvas), folder / "kept", folder / "scratch", every)
    with open_pool(Cluster(workers=workers), tasks=BLOCKS.count) as pool:
        run_canvas(job, pool.crew, "weave")
    assert not list((folder / "scratch").glob("*")), "a state's file outlived it"
    return Latents(job).read(PixelBox(0, 0, WIDTH, HEIGHT))


def test_the_same_bytes_for_any_workers(tmp_path):
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH)
    whole = weave_in_memory(plan_of(), *load_canvas(canvas))
    for workers in (0, 1, 2, 3):
        assert np.array_equal(run(tmp_path / str(workers), canvas, workers), whole), workers


class Killed(BaseException):
    """A run that is cut off."""


def test_a_canvas_goes_on_where_it_was_committed(tmp_path, monkeypatch):
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH)
    whole = run(tmp_path / "whole", canvas, 0)
    from histoloom.canvas import weaving

    made, real = [], weaving.advance_block

    def broken(plan, number, step, *rest):
        if step == 3:
            raise Killed
        made.append(step)
        return real(plan, number, step, *rest)

    monkeypatch.setattr(weaving, "advance_block", broken)
    with pytest.raises(Killed):
        run(tmp_path / "broken", canvas, 0)
    assert 2 in made
    monkeypatch.setattr(weaving, "advance_block", lambda *a: (made.append(a[2]), real(*a))[1])
    made.clear()
    assert np.array_equal(run(tmp_path / "broken", canvas, 0), whole)
    assert set(made) == {2, 3}, "what was committed was made again, or was not used"


def test_a_lost_workers_blocks_are_made_again(tmp_path):
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH)
    job = CanvasJob(plan_of(), Load(canvas, tmp_path / "died"), tmp_path / "kept", tmp_path / "scratch", 2)
    with open_pool(Cluster(workers=2), tasks=BLOCKS.count) as pool:
        run_canvas(job, pool.crew, "weave")
    whole = weave_in_memory(plan_of(), *load_canvas(canvas))
    assert np.array_equal(Latents(job).read(PixelBox(0, 0, WIDTH, HEIGHT)), whole)
    assert (tmp_path / "died").exists()


def test_glass_is_not_denoised_and_ends_as_glass(tmp_path):
    free = np.zeros((HEIGHT, WIDTH), np.uint8)
    free[8:40, 8:30] = 1
    denoiser, inputs = load_canvas(state_canvas(tmp_path / "c", HEIGHT, WIDTH, free=free))
    windows = []
    real = denoiser.predictor.network.forward
    denoiser.predictor.network.forward = lambda x, *given: (windows.append(len(x)), real(x, *given))[1]
    woven = weave_in_memory(plan_of(), denoiser, inputs)
    assert np.allclose(woven[:, free == 0], np.array(BACKGROUND)[:, None], atol=1e-5)
    assert woven[:, free > 0].std() > 0.1
    everything = HEIGHT * WIDTH / (WINDOW - 2 * HALO) ** 2 * 4 * 2  # cells, steps, branches of guidance
    assert 0 < sum(windows) < everything


def test_known_regions_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    free = np.zeros((HEIGHT, WIDTH), np.uint8)
    free[20:36, 30:50] = 1
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH, image=image, free=free)
    woven = weave_in_memory(plan_of(), *load_canvas(canvas))
    assert np.allclose(woven[:, free == 0], image[:, free == 0], atol=1e-5)
    assert not np.allclose(woven[:, free > 0], image[:, free > 0], atol=0.1)


def test_steps_taken_again_keep_what_is_kept_and_do_not_depend_on_blocks(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    free = np.zeros((HEIGHT, WIDTH), np.uint8)
    free[20:60, 10:50] = 1
    denoiser, inputs = load_canvas(state_canvas(tmp_path / "c", HEIGHT, WIDTH, image=image, free=free))
    once = weave_in_memory(plan_of(), denoiser, inputs)
    again = replace(denoiser, solver=denoiser.solver.repeated(3))
    end, cell = len(again.solver.steps), WINDOW - 2 * HALO
    woven = [
        weave_in_memory(plan_of(block_grid(HEIGHT, WIDTH, cell, block, WINDOW), end=end), again, inputs)
        for block in (28, 84)
    ]
    assert np.array_equal(*woven)
    assert np.allclose(woven[0][:, free == 0], image[:, free == 0], atol=1e-5)
    assert np.isfinite(woven[0]).all() and not np.allclose(woven[0][:, free > 0], once[:, free > 0], atol=0.1)


def test_an_image_that_is_begun_from_late_changes_little(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH, image=image)
    denoiser, inputs = load_canvas(canvas, steps=20)
    apart = [
        np.abs(weave_in_memory(plan_of(begin=begin, end=20), denoiser, inputs) - image).mean() for begin in (0, 10, 18)
    ]
    assert apart[0] > apart[1] > apart[2] and apart[2] < 0.2 * image.std()


def test_a_grid_is_interpolated_between_its_points():
    tokens = torch.stack([torch.ones(3, 2), 3 * torch.ones(3, 2)])
    there = torch.tensor([[True, True, False], [True, False, False]])
    grid = ConditionGrid(Conditions(tokens, there, torch.eye(2)), torch.tensor([[0, 1]]), (10.0, 10.0))
    found = grid.at(np.array([0.0, 3.0, 9.0]), np.array([0.0, 10.0, 30.0]))
    assert torch.allclose(found.vector, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert found.sequence_mask.tolist() == [[True, True, False], [True, True, False], [True, False, False]]
    assert found.sequence[1, :2, 0].tolist() == [2.0, 1.0]  # mixed where both have a token, whole where one has


def test_the_canvas_follows_its_grid_and_its_map(tmp_path):
    base, inputs = load_canvas(state_canvas(tmp_path / "c", HEIGHT, WIDTH))
    woven = weave_in_memory(plan_of(), base, inputs)
    other = np.zeros((2, HEIGHT, WIDTH), np.float16)
    _, flat = load_canvas(state_canvas(tmp_path / "d", HEIGHT, WIDTH, map=other))
    assert not np.allclose(woven, weave_in_memory(plan_of(), base, flat), atol=1e-3)


def test_a_full_disk_says_so_and_names_the_folder(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(HistoloomError, match=r"disk that holds .*scratch.* is full.*goes on from there"):
        run(tmp_path, canvas, 0)


def test_the_log_finds_every_border(tmp_path):
    plan = plan_of()
    for record in plan.log():
        assert record["window"] - record["reach"] == WINDOW - 2 * HALO
        origin = np.array(record["origin_latent_px"]) + record["inset"]
        assert tuple(origin % plan.blocks.canvas) == plan.origin(record["step"] + 1)


def test_the_hash_of_a_weave_is_its_own(tmp_path):
    canvas = state_canvas(tmp_path / "c", HEIGHT, WIDTH)
    run(tmp_path / "a", canvas, 0, every=1)
    run(tmp_path / "b", canvas, 0, every=4)
    assert hash_tree(tmp_path / "a/kept/step-0004") == hash_tree(tmp_path / "b/kept/step-0004")
