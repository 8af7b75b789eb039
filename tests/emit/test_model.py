"""A study's models as a package: half the bytes, loadable, with a card of facts; and nothing where it can't be whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.conditions.bus import ConditionSpec
from pipeline.config import TrainAutoencoder, TrainDenoiser, load_params
from pipeline.data.commit import write_json
from pipeline.emit.model import package_few_steps, package_models
from pipeline.errors import HistoloomError
from pipeline.models.autoencoder import build_autoencoder, load_autoencoder, load_codec, save_latent_scale
from pipeline.models.denoiser import build_denoiser, load_denoiser, save_denoiser
from pipeline.models.lineage import Lineage, read_lineage
from tests.build import make_study

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def study(folder):
    params = make_study(".", [], emit={"licence": "CC-BY-4.0"}, train_autoencoder={"decoder_steps": 7})
    models, spec = Path("models"), ConditionSpec("label", "vector", 2, 0.5, ("tumour", "stroma"))
    build_autoencoder(TrainAutoencoder(channels=16)).save_pretrained(models / "autoencoder")
    save_latent_scale(models / "autoencoder", torch.zeros(4), torch.ones(4))
    training = {"map_input": "concat", "prediction": "v_prediction", "schedule": "cosine", "train_timesteps": 1000}
    save_denoiser(
        build_denoiser(TrainDenoiser(channels=(16, 32)), (spec,), 4, 8), (spec,), training, models / "denoiser"
    )
    (models / "encoders/rna").mkdir(parents=True)
    (models / "encoders/rna/codes.parquet").write_bytes(b"of samples")
    write_json(models / "encoders/encoders.json", {})
    for part in ("autoencoder", "denoiser", "encoders"):
        Lineage(groups=("p1", "p2"), slides=("s1",)).save(models / part)
    return params


def test_a_package_loads_and_its_card_says_whose_it_is(study):
    package_models(study, Path("out/breast"), "Slides of Somebody et al.", "one abacus", limits="- It paints no fat.")
    out = Path("out/breast")
    assert all(t.dtype == torch.float16 for t in load_file(out / "denoiser" / WEIGHTS).values())
    model, specs, _ = load_denoiser(out / "denoiser", "cpu")
    assert next(model.parameters()).dtype == torch.float32 and specs[0].channels == ("tumour", "stroma")
    assert load_codec(out / "autoencoder", "cpu").channels == 4
    assert read_lineage(out / "denoiser").groups == ("p1", "p2")
    assert not list(out.rglob("codes.parquet"))
    card = (out / "README.md").read_text(encoding="utf-8")
    for said in (
        "# breast",
        "Somebody et al.",
        "one abacus",
        "- It paints no fat.\n- Weights",
        "p1, p2",
        "cc-by-4.0",
        "tumour, stroma",
        "50 %",
        "critic | 7 |",
    ):
        assert said in card


def test_a_package_does_not_say_where_its_model_was_begun(study):
    load_autoencoder("models/autoencoder").save_pretrained("models/autoencoder")
    assert "_name_or_path" in Path("models/autoencoder/config.json").read_text(encoding="utf-8")
    package_models(study, Path("out"), "Mine.")
    assert "_name_or_path" not in Path("out/autoencoder/config.json").read_text(encoding="utf-8")
    load_codec("out/autoencoder", "cpu")


def test_a_packages_groups_are_told_from_another_studys(study):
    package_models(study, Path("out/breast"), "Slides.", dataset="her2st")
    for part in ("autoencoder", "denoiser", "encoders"):
        assert read_lineage(Path("out/breast") / part).groups == ("her2st:p1", "her2st:p2")
    assert "her2st:p1" in Path("out/breast/README.md").read_text(encoding="utf-8")
    assert read_lineage(Path("models/denoiser")).groups == ("p1", "p2")


def test_a_package_that_goes_on_from_another_tells_of_both(study):
    package_models(study, Path("old"), "Slides of Somebody et al.", "one abacus", "her2st")
    steps, first = study.train_denoiser.steps, load_params()
    for place in ("old", "newer"):
        changed = {"init": str(Path(place).absolute()), "windows_latent_px": (4, 8), "steps": 77}
        params = first.model_copy(update={"train_denoiser": first.train_denoiser.model_copy(update=changed)})
        Path("params.yaml").write_text(params.model_dump_json(), encoding="utf-8")
        (read_lineage(f"{place}/denoiser") | Lineage(groups=("p1", "p4"))).save(Path("models/denoiser"))
        package_models(params, Path("newer" if place == "old" else "newest"), "Slides.", "two abaci", "her2st")
    assert read_lineage("newer/denoiser").groups == ("her2st:p1", "her2st:p2", "her2st:p4")
    assert load_params(Path("newest/params-1.yaml")) == first and load_params(Path("newest/params.yaml")) == params
    assert load_params(Path("newest/params-2.yaml")).train_denoiser.init.endswith("old")
    card = Path("newest/README.md").read_text(encoding="utf-8")
    assert card.index("one abacus") < card.index("two abaci") and f"| denoiser | {steps} |" in card
    assert card.count("denoiser, windows of 4 and 8 latent px | 77 |") == 2 and "tiles of 16 and 32 px" in card


def _distilled(seed: int, **facts) -> None:
    """A student in the study's models, a little away from its teacher."""
    model, specs, training = load_denoiser("models/denoiser", "cpu")
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.02 * torch.randn_like(weights)
    save_denoiser(model, specs, training | {"distilled": 4} | facts, Path("models/denoiser"))


def test_what_a_student_learnt_joins_the_package_of_its_teacher(study):
    package_models(study, Path("breast"), "Slides of Somebody et al.", "one abacus", "her2st")
    card = Path("breast/README.md").read_text(encoding="utf-8")
    assert "Few steps" not in card
    _distilled(0)
    (read_lineage("breast/denoiser") | Lineage(groups=("p3",))).save(Path("models/denoiser"))
    package_few_steps(Path("breast"), "her2st")
    assert read_lineage("breast/denoiser").groups == ("her2st:p1", "her2st:p2", "her2st:p3")
    said = Path("breast/README.md").read_text(encoding="utf-8")
    assert "takes 4 steps" in said and "her2st:p3" in said and "Somebody et al." in said and "one abacus" in said
    package_few_steps(Path("breast"), "her2st")  # once more changes nothing
    assert Path("breast/README.md").read_text(encoding="utf-8") == said


def test_only_a_packages_own_student_joins_it(study):
    with pytest.raises(HistoloomError, match="breast/denoiser holds no denoiser"):
        package_few_steps(Path("breast"))
    package_models(study, Path("breast"), "Mine.")
    with pytest.raises(HistoloomError, match="models/denoiser must be distilled"):
        package_few_steps(Path("breast"))
    _distilled(0, prediction="epsilon")
    with pytest.raises(HistoloomError, match="wasn't distilled from"):
        package_few_steps(Path("breast"))
    assert not Path("breast/denoiser/few_steps").exists()


def test_a_package_is_whole_or_not_there(study):
    path = Path("models/denoiser") / WEIGHTS
    tensors = load_file(path)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] + 1e6}, path)
    with pytest.raises(HistoloomError, match=r"'conv_in\.bias' doesn't fit half precision"):
        package_models(study, Path("out"), "Mine.")
    assert not Path("out").exists()
    save_file(tensors, path)
    package_models(study, Path("out"), "Mine.")
    with pytest.raises(HistoloomError, match="out is not empty"):
        package_models(study, Path("out"), "Mine.")


def test_a_model_that_is_not_there_is_named(folder):
    params = make_study(".", [])
    with pytest.raises(HistoloomError, match="holds no autoencoder"):
        package_models(params, Path("out"), "Mine.")
