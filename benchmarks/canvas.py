"""Whole slides as one canvas: what a window layout costs, where its seams are, and what blocks on dask add.

All layouts weave with the packaged model under DDIM, each canvas under the mask of a square of a section that the model
never saw, on the same machine in the same run. Seams are looked for at the borders of each step's own cells. In full it
needs the real data that HISTOLOOM_REAL_DATA names; with --smoke it draws slides of its own, and its figures mean nothing.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.canvases import FULL, SMALL, LoadOpen, Open, Sizes, squares
from benchmarks.exchange import measure_exchange
from benchmarks.packaged import MODEL, real, smoke
from benchmarks.run import arguments, chip, flat, report, seconds
from benchmarks.studies import Study
from benchmarks.window_layouts import LAYOUTS, detail, difference_interval, measure_layout, plan_of
from histoloom.canvas.blocks import CanvasPlan, block_grid
from histoloom.canvas.decode import BAND, DecodeJob, decode_band, read_bands
from histoloom.canvas.step import WindowDenoiser
from histoloom.canvas.weaving import CanvasJob, run_canvas, weave_in_memory
from histoloom.canvas.window_layouts import Lattice
from histoloom.cluster import one_thread, open_pool
from histoloom.conditions.batch import Conditions
from histoloom.config import Cluster, Params
from histoloom.data.commit import digest, hash_tree
from histoloom.process.predictor import Predictor
from histoloom.process.process import Process
from histoloom.process.solver import make_solver
from histoloom.progress import progress
from histoloom.slides.open import open_slide
from histoloom.slides.pyramid import PyramidPicture, level_sizes, write_pyramid
from histoloom.studies.code_identity import code_sha256
from histoloom.targets.latents import Latents

PARTS = ("window_layouts", "wall", "workers", "exchange", "memory", "gigapixel")
GIGAPIXEL_PX = 32768
CANVAS_MIB = (16, 256)
TINY_FACTOR = 4
"""Pixels to a latent pixel, of the tiny decoder."""


def measure_layouts(study: Study, sizes: Sizes, pictures: Path | None, root: Path) -> dict:
    real, found = squares(study, sizes), {}
    # all that latents depend on; the decoder is not of it
    inputs = [hash_tree(study.folder / part) for part in ("data/tiles", "models/denoiser", "models/encoders")]
    kept = (
        root
        / "latents"
        / digest([code_sha256("sample_slides", Params.model_validate(study.params)), vars(sizes), inputs])[:12]
    )
    tiles = np.concatenate([square.tiles for square in real])
    for steps in sizes.steps:
        load = LoadOpen(study.folder / "models", steps, sizes.window, 1, masked=True)
        for layout in LAYOUTS:
            keys, made = measure_layout(layout, load, sizes, real, kept)
            found.setdefault(layout, {})[f"steps{steps}"] = keys
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                Image.fromarray(made[0]).save(pictures / f"{layout}-{steps}.png")
        lattice, alone = (found[layout][f"steps{steps}"] for layout in ("lattice", "independent"))
        for key in ("kid", "kid_inside"):
            if f"{key}_by_canvas" in lattice and f"{key}_by_canvas" in alone:
                interval = difference_interval(lattice, alone, f"{key}_by_canvas")
                lattice[f"{key}_minus_independent_interval"] = interval
    return {"window_layouts": found, "real": detail(tiles)}


def measure_wall(study: Study, sizes: Sizes, repeats: int) -> dict:
    """The lattice in batches, over random crops one at a time, and over its own forwards alone; on all cores."""
    steps = min(sizes.steps)
    ours, theirs = (LoadOpen(study.folder / "models", steps, sizes.window, size)() for size in (sizes.batch_size, 1))
    lattice, random = (plan_of(name, sizes, 0, steps, ours[1].channels) for name in ("lattice", "random"))

    @torch.inference_mode()
    def bare() -> None:
        windows = len(lattice.windows(0, 0).corners)
        size = sizes.batch_size
        noise = np.random.default_rng(0).standard_normal(
            (size, ours[1].channels, sizes.window, sizes.window), np.float32
        )
        x, times = torch.from_numpy(noise).to(chip()), torch.full((size,), 500, device=chip())
        given = rows_of(ours[1].nulls, size).to(chip())
        for _ in range(steps * -(-windows // size)):
            ours[0].predictor.network(x, times, given)

    rounds = {
        "lattice": lambda: weave_in_memory(lattice, *ours),
        "random": lambda: weave_in_memory(random, *theirs),
        "bare": bare,
    }
    bare()
    times = [{name: seconds(work).wall for name, work in rounds.items()} for _ in range(repeats)]
    return {
        "lattice_over_diffinfinite_wall": statistics.median(t["lattice"] / t["random"] for t in times),
        "wall_over_bare_forward": statistics.median(t["lattice"] / t["bare"] for t in times),
    }


def measure_workers(study: Study, sizes: Sizes, root: Path, repeats: int) -> dict:
    """One canvas of blocks on 1, 2 and 3 workers of a thread each, models loaded; and what travels."""
    steps, side = min(sizes.steps), 2 * sizes.side
    blocks = block_grid(side // 2, side, sizes.cell, sizes.side // 2, sizes.window)
    load = LoadOpen(study.folder / "models", steps, sizes.window, sizes.batch_size)
    plan = CanvasPlan(0, Lattice(sizes.window, (sizes.halo,)), blocks, load()[1].channels, 0, steps)
    times: dict[int, list[float]] = {1: [], 2: [], 3: []}
    hashes, over_bare, bare = set(), [], []
    for number in range(repeats):
        for workers, of in times.items():
            folder = root / f"workers-{workers}-{number}"
            job = CanvasJob(plan, load, folder / "kept", folder / "scratch", steps)
            with open_pool(Cluster(workers=workers), tasks=blocks.count) as pool:
                warm = replace(job, plan=replace(plan, end=1), checkpoints=folder / "warm")
                run_canvas(warm, pool.crew, "warming up")
                of.append(seconds(partial(run_canvas, job, pool.crew, f"{workers} workers")).wall)
            hashes.add(hash_tree(folder / "kept"))
        alone, both = (_side_by_side(load, sizes, count) for count in (1, 2))
        bare.append(2 * alone / both)
        # forwards of two processes are twice those of half this canvas
        over_bare.append(both * _batches(plan, sizes) / (4 * sizes.cells**2) / times[2][-1])
    moved = [_strip_bytes(plan, step) for step in range(steps)]
    return {
        "identical_across_workers": len(hashes) == 1,
        "speedup_2_workers": statistics.median(one / two for one, two in zip(times[1], times[2])),
        "speedup_2_bare_processes": statistics.median(bare),
        "throughput_2_workers_over_2_bare_processes": statistics.median(over_bare),
        "blocks": blocks.count,
        "strip_bytes_per_step": statistics.mean(moved),
        "strip_over_canvas_bytes": statistics.mean(moved) / (4 * plan.channels * np.prod(blocks.canvas)),
    }


def _batches(plan: CanvasPlan, sizes: Sizes) -> int:
    """Forwards of a canvas, all steps and blocks."""
    return sum(
        -(-len(plan.windows(step, number).corners) // sizes.batch_size)
        for step in range(plan.end)
        for number in range(plan.blocks.count)
    )


def rows_of(nulls: Conditions, count: int) -> Conditions:
    return nulls.each(lambda value: value.expand(count, *value.shape[1:]))


def _forwards(load: LoadOpen, sizes: Sizes, start, queue) -> None:
    """Seconds that this process takes for a canvas' worth of forwards, once all processes are ready."""
    with one_thread(), torch.inference_mode():
        denoiser, inputs = load()
        x = torch.zeros(sizes.batch_size, inputs.channels, sizes.window, sizes.window, device=chip())
        times, given = torch.full((len(x),), 500, device=chip()), rows_of(inputs.nulls, len(x)).to(chip())
        denoiser.predictor.network(x, times, given)
        start.wait()
        queue.put(
            seconds(lambda: [denoiser.predictor.network(x, times, given) for _ in range(2 * sizes.cells**2)]).wall
        )


def _side_by_side(load: LoadOpen, sizes: Sizes, count: int) -> float:
    """Seconds of the same forwards in each of `count` processes at once: what the machine's cores allow."""
    context = multiprocessing.get_context("spawn")
    start, queue = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_forwards, args=(load, sizes, start, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    times = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return max(times)


def _strip_bytes(plan: CanvasPlan, step: int) -> int:
    """What the blocks hand to each other at a step, wherever they are."""
    down, right = plan.strips(step)
    blocks = [plan.blocks.block(number) for number in range(plan.blocks.count)]
    return sum(4 * plan.channels * (b.height * right + down * b.width + down * right) for b in blocks)


class Tiny(torch.nn.Module):
    """A denoiser of two convolutions, for canvases whose size is the point."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class LoadTiny:
    def __call__(self) -> tuple[WindowDenoiser, Open]:
        process = Process("v_prediction", "cosine", 1000)
        predictor = Predictor(Tiny().eval(), process, (), lambda level: lambda name: 1.0)
        return WindowDenoiser(predictor, Conditions(), make_solver("ddim", process, 2), 4, "cpu"), Open(
            4, Conditions(vector=torch.zeros(1, 1), map=torch.zeros(1, 0, 64, 64))
        )


def _peak(side: int, folder: Path, queue) -> None:
    """MiB of memory that a canvas of this side takes above what the process holds after its imports."""
    with one_thread():
        load = LoadTiny()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
        before = _status("VmRSS")
        plan = CanvasPlan(0, Lattice(64, (4,)), block_grid(side, side, 56, 256, 64), 4, 0, 2)
        job = CanvasJob(plan, load, folder / "kept", folder / "scratch", 2)
        with open_pool(Cluster(workers=0), tasks=1) as pool:
            run_canvas(job, pool.crew, f"{side} x {side}")
    queue.put((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """KiB, of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measure_memory(root: Path, smoke: bool) -> dict:
    context, out = multiprocessing.get_context("spawn"), {}
    for mib in CANVAS_MIB[: 1 if smoke else 2]:
        queue = context.Queue()
        process = context.Process(target=_peak, args=(int((mib * 2**20 / 16) ** 0.5), root / f"memory-{mib}", queue))
        process.start()
        out[str(mib)] = queue.get()
        process.join()
    return {"memory_increment_mib": out}


@dataclass(frozen=True)
class LoadTinyCodec:
    def __call__(self) -> Latents:
        from diffusers import AutoencoderTiny

        widths = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
        model = AutoencoderTiny(**widths, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3)
        return Latents(model.eval(), torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1), "cpu")


def _whole(side_px: int, folder: Path, queue) -> None:
    """A slide from noise to its pyramid, and the most memory that it took, MiB."""
    side = side_px // TINY_FACTOR
    plan = CanvasPlan(0, Lattice(64, (4,)), block_grid(side, side, 56, 1024, 64), 4, 0, 2)
    job = CanvasJob(plan, LoadTiny(), folder / "kept", folder / "scratch", 2)
    bands = [
        DecodeJob(job, n, side, side, LoadTinyCodec(), TINY_FACTOR, folder / "bands") for n in range(-(-side // BAND))
    ]
    with open_pool(Cluster(workers=0), tasks=1) as pool:
        run_canvas(job, pool.crew, f"{side_px} px")
        pool(decode_band, bands, "decoding")
    picture = PyramidPicture(read_bands(bands), (side_px, side_px), 1.0)
    with progress(
        "pyramid", sum(-(-h // 256) * -(-w // 256) for h, w in level_sizes((side_px, side_px), 256))
    ) as advance:
        write_pyramid(folder / "slide.tif", picture, scratch=folder, advance=advance)
    with open_slide(folder / "slide.tif") as slide:
        queue.put((_status("VmHWM") / 1024, slide.width * slide.height))


def measure_gigapixel(root: Path, smoke: bool) -> dict:
    context = multiprocessing.get_context("spawn")
    queue, folder = context.Queue(), root / "gigapixel"
    folder.mkdir()
    process = context.Process(target=_whole, args=(GIGAPIXEL_PX // (16 if smoke else 1), folder, queue))
    process.start()
    peak, pixels = queue.get()
    process.join()
    return {"gigapixel": {"peak_mib": peak, "pixels": pixels}}


def main() -> None:
    options = arguments(
        __doc__, PARTS, work="keep the study and what is woven here, so that a broken run goes on where it stopped",
        pictures="write a canvas of each layout here", model="a packaged model's folder or name (histoloom-base)",
    )  # fmt: skip
    sizes, keys, minutes = SMALL if options.smoke else FULL, {}, {}
    if chip() == "cuda":
        sizes = replace(sizes, batch_size=sizes.cells**2)  # all of a step's
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        study = None
        if not set(options.only) <= {"exchange", "memory", "gigapixel"}:
            model = str(options.model or MODEL)
            study = smoke(root) if options.smoke else real(root, model, 8)
            study.train()
        parts = {
            "window_layouts": lambda: measure_layouts(study, sizes, options.pictures, root),
            "wall": lambda: measure_wall(study, sizes, 1 if options.smoke else 5),
            "workers": lambda: measure_workers(study, sizes, Path(temporary), 1 if options.smoke else 3),
            "exchange": lambda: measure_exchange(
                Path(temporary), 2 if options.smoke else 8, 4 if options.smoke else 50
            ),
            "memory": lambda: measure_memory(Path(temporary), options.smoke),
            "gigapixel": lambda: measure_gigapixel(Path(temporary), options.smoke),
        }
        for name in options.only:
            start = time.monotonic()
            keys |= parts[name]()
            minutes[f"minutes_{name}"] = (time.monotonic() - start) / 60
    report("canvas", options.smoke, vars(sizes) | {"params": study and study.params}, flat(keys), minutes, options.json)


if __name__ == "__main__":
    main()
