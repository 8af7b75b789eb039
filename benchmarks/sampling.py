"""Time of the `sample` stage's own path, over that of its denoiser forwards and decodes alone.

Both run the same microbatches at the demo's sizes, on one torch thread, with the models loaded. The pipeline also
encodes the conditions, draws the noise, guides, steps the solver, and writes, hashes and syncs its parts. The weights
are untrained: they take the same time.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.run import arguments, report, seconds
from pipeline.cluster import one_thread
from pipeline.conditions.bus import Conditions
from pipeline.conditions.encode import load_encoders
from pipeline.config import Params, load_params
from pipeline.data.commit import write_json
from pipeline.data.plan import make_plan
from pipeline.data.schema import PLAN_ROW, write_rows
from pipeline.diffusion.study import Generator, SamplePart, estimate, generator_sha256, sample_part, study_generator
from pipeline.models.autoencoder import build_autoencoder, save_latent_scale
from pipeline.models.denoiser import build_denoiser, denoise, save_denoiser
from pipeline.training.clip import clip_config, save_clip

STEPS = 20


def demo_params() -> Params:
    """The demo's params.yaml, at the benchmark's number of steps."""
    params = load_params(Path(__file__).parent.parent / "params.yaml")
    return params.model_copy(update={"sample": params.sample.model_copy(update={"steps": STEPS})})


def write_models(params: Params, folder: Path) -> None:
    """Untrained models of the sizes in params, laid out as the training stages do."""
    import open_clip

    torch.manual_seed(0)
    settings = clip_config(params.train_encoders.text)
    text = open_clip.CLIP(settings["embed_dim"], settings["vision_cfg"], settings["text_cfg"])
    save_clip(text, settings, folder / "encoders" / "text")
    write_json(folder / "encoders" / "encoders.json", {"text": "text", "revision": None})

    coder, channels = params.train_autoencoder, params.train_autoencoder.latent_channels
    build_autoencoder(coder).save_pretrained(folder / "autoencoder", safe_serialization=True)
    save_latent_scale(folder / "autoencoder", torch.zeros(channels), torch.ones(channels))

    config, side = params.train_denoiser, params.tile.tile_px // coder.down_factor
    encoders = load_encoders(params.tile.labels.classes, config.conditions, folder / "encoders")
    specs = encoders.specs(config.drop)
    facts = {"prediction": config.prediction, "schedule": config.schedule, "train_timesteps": config.train_timesteps}
    facts |= {"latent_px": side, "latent_channels": channels}
    save_denoiser(build_denoiser(config, specs, channels, side), specs, facts, folder / "denoiser")


def write_plan(params: Params, tiles: int, path: Path) -> pd.DataFrame:
    """A plan of `tiles` tiles of the first class."""
    rare, common = params.tile.labels.classes[:2]
    labels = [rare] * 50 + [common] * (50 + tiles)
    rows = pd.DataFrame({"tile_id": [f"tile-{i}" for i in range(len(labels))], "label": labels})
    composition = np.where(np.arange(len(labels)) % 2, "mostly ", "some ")
    rows = rows.assign(caption="H&E of skin, " + composition + rows["label"], split="train", split_group="patient")
    config = params.plan.model_copy(
        update={"classes": (rare,), "max_per_class": tiles, "overdraw": 1.0, "evaluation_tiles": 0}
    )
    plan = make_plan(rows, config, params.tile.labels.classes, params.seed)
    write_rows(plan, path, PLAN_ROW)
    return plan


@torch.inference_mode()
def bare(generator: Generator, params: Params, microbatches: int) -> None:
    """The forwards and decodes that the plan takes, and nothing else."""
    size, facts = params.plan.batch_size, generator.training
    latents = torch.randn(2 * size, facts["latent_channels"], facts["latent_px"], facts["latent_px"])
    tokens, mask = generator.encoders.text.encode(["H&E of skin, mostly keratin"] * (2 * size))
    given = Conditions(
        sequence=tokens, sequence_mask=mask, vector=torch.zeros(2 * size, len(params.tile.labels.classes))
    )
    times = torch.full((2 * size,), 500)
    for _ in range(microbatches):
        for _ in range(params.sample.steps):
            denoise(generator.unet, latents, times, given)
        generator.codec.model.decode(latents[:size])


def main() -> None:
    options = arguments(__doc__)
    params = demo_params()
    size = params.plan.batch_size
    microbatches, repeats = (1, 2) if options.smoke else (2, 5)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root = Path(folder)
        write_models(params, root / "models")
        plan = write_plan(params, microbatches * size, root / "plan.parquet")
        sha256 = generator_sha256(root / "models", params.train_denoiser.conditions)
        generator = study_generator(params, root / "models", "cpu", sha256)

        def sample(parts: Path) -> None:
            for part in sorted(plan["part"].unique()):
                sample_part(SamplePart(part, root / "plan.parquet", root / "models", sha256, params, "cpu", parts))

        estimate(params, size, root / "models", "cpu")  # the first forwards take longer
        pairs = [
            (
                seconds(lambda r=r: sample(root / str(r))).wall,
                seconds(lambda: bare(generator, params, microbatches)).wall,
            )
            for r in range(repeats)
        ]
    medians = [statistics.median(times) for times in zip(*pairs)]
    report(
        "sampling",
        options.smoke,
        {"tiles": len(plan), "batch_size": size, "steps": STEPS, "guidance": params.sample.guidance}
        | {"channels": params.train_denoiser.channels, "tile_px": params.tile.tile_px, "repeats": repeats},
        {"time_over_bare_forward": statistics.median(ours / alone for ours, alone in pairs)},
        {"s_per_tile": medians[0] / len(plan), "s_per_tile_bare": medians[1] / len(plan)},
        options.json,
    )


if __name__ == "__main__":
    main()
