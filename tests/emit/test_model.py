"""A study's models as a package: half the bytes, loadable, with a card of facts; and nothing where it can't be whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import histoloom
from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.backbones.unet import UNet
from histoloom.cli.main import cli
from histoloom.conditions.condition import Source
from histoloom.conditions.image import ImageCondition
from histoloom.conditions.tile_encoder import EncoderSizes, TileEncoder, as_extractor, fitted_encoder
from histoloom.config import Sample, TrainAutoencoder, TrainDenoiser, load_params
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining
from histoloom.config.train_encoders import SlideColumns
from histoloom.data.codes import code
from histoloom.data.commit import write_json
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.study_folder import Study
from histoloom.emit.model import Words, package_few_steps, package_models
from histoloom.emit.redaction import FOLDER, Names, names_outside
from histoloom.errors import HistoloomError
from histoloom.targets.autoencoder import build_autoencoder, load_autoencoder
from histoloom.targets.latents import Latents, save_latent_scale
from tests.build import make_part, make_study, tile_rows, tiles
from tests.stages import study_of

SALT = b"a salt for tests"
MINE = Words("Mine.")
HER2ST = Names("her2st", SALT, dict.fromkeys(("p1", "p2", "p3", "p4", "s1"), "her2st"))
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def params(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", SALT.decode())
    params = make_study(".", [], emit={"licence": "CC-BY-4.0"}, train_autoencoder={"decoder_steps": 7})
    models, spec = Path("models"), ConditionSpec("label", "vector", 2, 0.5, ("tumour", "stroma"))
    build_autoencoder(TrainAutoencoder(channels=16)).save_pretrained(models / "autoencoder")
    save_latent_scale(models / "autoencoder", torch.zeros(4), torch.ones(4))
    record = DenoiserRecord((spec,), DenoiserTraining("v_prediction", "cosine", 1000, "concat", (4, 8, 8)))
    save_denoiser(UNet.build(TrainDenoiser(channels=(16, 32)), (spec,), (4, 8, 8)), record, models / "denoiser")
    (models / "encoders/rna").mkdir(parents=True)
    (models / "encoders/rna/codes.parquet").write_bytes(b"of samples")
    write_json(models / "encoders/encoders.json", {})
    for part in ("autoencoder", "denoiser", "encoders"):
        Lineage(groups=("p1", "p2"), slides=("s1",)).save(models / part)
    return params


def test_a_package_loads_and_its_card_says_whose_it_is(params):
    package_models(
        study_of(params), Path("out/breast"), Words("Slides of Somebody et al.", "one abacus", "- It paints no fat.")
    )
    out = Path("out/breast")
    assert all(t.dtype == torch.float16 for t in load_file(out / "denoiser" / WEIGHTS).values())
    model, record = load_denoiser(out / "denoiser", "cpu")
    assert next(model.parameters()).dtype == torch.float32 and record.channels["label"] == ("tumour", "stroma")
    assert Latents.load(out / "autoencoder", "cpu").channels == 4
    pipeline = DiffusionPipeline.from_pretrained(out)  # which histoloom made known
    assert type(pipeline).__name__ == "HistoloomPipeline" and isinstance(pipeline.denoiser, UNet2DConditionModel)
    (made,) = pipeline(label="stroma", seed=4, num_inference_steps=1).images
    expected = histoloom.load(out, device="cpu").sample(1, 4, label="stroma", settings=Sample(steps=1)).images[0]
    assert made.tobytes() == expected.tobytes()
    for name, said in (
        ("text", "reads no text"),
        ("like", r"reads no image \(like\)"),
        ("mpp", r"magnification \(mpp\)"),
    ):
        with pytest.raises(HistoloomError, match=f"{said}. It can be told: label"):
            histoloom.load(out, device="cpu").sample(1, **{name: {"text": "H&E", "like": "x.png", "mpp": 1.0}[name]})
    assert '`AutoencoderTiny.from_pretrained(FOLDER, subfolder="autoencoder")`' in (out / "README.md").read_text()
    lineage = read_lineage(out / "denoiser")
    assert lineage.groups == tuple(sorted(code("g", name, SALT) for name in ("p1", "p2")))
    assert lineage.slides == (code("s", "s1", SALT),) and not lineage.public
    assert not list(out.rglob("codes.parquet"))
    card = (out / "README.md").read_text(encoding="utf-8")
    for said in (
        "# breast",
        "Somebody et al.",
        "one abacus",
        "- It paints no fat.\n- Weights",
        "Salted codes stand for 2 of the groups",
        "can't be matched by codes",
        "cc-by-4.0",
        "tumour, stroma",
        "50 %",
        "critic | 7 |",
    ):
        assert said in card


def test_a_package_does_not_say_where_its_model_was_begun(params):
    load_autoencoder("models/autoencoder").save_pretrained("models/autoencoder")
    assert "_name_or_path" in Path("models/autoencoder/config.json").read_text(encoding="utf-8")
    package_models(study_of(params), Path("out"), MINE)
    assert "_name_or_path" not in Path("out/autoencoder/config.json").read_text(encoding="utf-8")
    Latents.load("out/autoencoder", "cpu")


def test_a_packages_groups_are_told_from_another_studys(params):
    package_models(study_of(params), Path("out/breast"), Words("Slides."), HER2ST)
    for part in ("autoencoder", "denoiser", "encoders"):
        assert read_lineage(Path("out/breast") / part).groups == ("her2st:p1", "her2st:p2")
    assert "her2st:p1" in Path("out/breast/README.md").read_text(encoding="utf-8")
    assert read_lineage(Path("models/denoiser")).groups == ("p1", "p2")


def test_a_package_that_goes_on_from_another_tells_of_both(params):
    package_models(study_of(params), Path("old"), Words("Slides of Somebody et al.", "one abacus"), HER2ST)
    steps, first = params.train_denoiser.steps, params
    for place in ("old", "newer"):
        changed = {"init": str(Path(place).absolute()), "windows_latent_px": (4, 8), "steps": 77}
        later = first.model_copy(update={"train_denoiser": first.train_denoiser.model_copy(update=changed)})
        Path("params.yaml").write_text(later.model_dump_json(), encoding="utf-8")
        (read_lineage(f"{place}/denoiser") | Lineage(groups=("p1", "p4"))).save(Path("models/denoiser"))
        package_models(
            study_of(later), Path("newer" if place == "old" else "newest"), Words("Slides.", "two abaci"), HER2ST
        )
    assert read_lineage("newer/denoiser").groups == ("her2st:p1", "her2st:p2", "her2st:p4")
    trained = [
        load_params(Path("newest") / f"{name}.yaml").train_denoiser for name in ("params-1", "params-2", "params")
    ]
    assert trained[0] == first.train_denoiser and trained[2].steps == 77
    assert [config.init for config in trained] == ["scratch", FOLDER, FOLDER]
    card = Path("newest/README.md").read_text(encoding="utf-8")
    assert card.index("one abacus") < card.index("two abaci") and f"| denoiser | {steps} |" in card
    assert card.count("denoiser, windows of 4 and 8 latent px | 77 |") == 2 and "tiles of 16 and 32 px" in card


def _distilled(seed: int, **facts) -> None:
    """A student in the study's models, a little away from its teacher."""
    model, record = load_denoiser("models/denoiser", "cpu")
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.02 * torch.randn_like(weights)
    training = replace(record.training, **{"distilled": 4} | facts)
    save_denoiser(model, replace(record, training=training), Path("models/denoiser"))


def test_what_a_student_learnt_joins_the_package_of_its_teacher(params):
    package_models(study_of(params), Path("breast"), Words("Slides of Somebody et al.", "one abacus"), HER2ST)
    card = Path("breast/README.md").read_text(encoding="utf-8")
    assert "Few steps" not in card
    _distilled(0)
    (read_lineage("breast/denoiser") | Lineage(groups=("p3",))).save(Path("models/denoiser"))
    package_few_steps(Study(), Path("breast"), HER2ST)
    assert read_lineage("breast/denoiser").groups == ("her2st:p1", "her2st:p2", "her2st:p3")
    said = Path("breast/README.md").read_text(encoding="utf-8")
    assert "takes 4 steps" in said and "her2st:p3" in said and "Somebody et al." in said and "one abacus" in said
    package_few_steps(Study(), Path("breast"), HER2ST)  # once more changes nothing
    assert Path("breast/README.md").read_text(encoding="utf-8") == said


def test_only_a_packages_own_student_joins_it(params):
    with pytest.raises(HistoloomError, match="breast/denoiser holds no denoiser"):
        package_few_steps(Study(), Path("breast"))
    package_models(study_of(params), Path("breast"), MINE)
    with pytest.raises(HistoloomError, match="models/denoiser must be distilled"):
        package_few_steps(Study(), Path("breast"))
    _distilled(0, prediction="epsilon")
    with pytest.raises(HistoloomError, match="wasn't distilled from"):
        package_few_steps(Study(), Path("breast"))
    assert not Path("breast/denoiser/few_steps").exists()


def test_a_package_is_whole_or_not_there(params):
    path = Path("models/denoiser") / WEIGHTS
    tensors = load_file(path)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"] + 1e6}, path)
    with pytest.raises(HistoloomError, match=r"'conv_in\.bias' doesn't fit half precision"):
        package_models(study_of(params), Path("out"), MINE)
    assert not Path("out").exists()
    save_file(tensors, path)
    package_models(study_of(params), Path("out"), MINE)
    with pytest.raises(HistoloomError, match="out is not empty"):
        package_models(study_of(params), Path("out"), MINE)


def test_a_model_that_is_not_there_is_named(folder):
    params = make_study(".", [])
    with pytest.raises(HistoloomError, match="holds no autoencoder"):
        package_models(study_of(params), Path("out"), MINE)


def test_nothing_that_lies_beside_a_model_goes_with_it(params, capsys):
    secret = "patient-7"
    (Path("models/encoders/text/fold-7")).mkdir(parents=True)
    for name in ("notes.txt", "patient-7.safetensors", "fold-7/config.json"):
        (Path("models/encoders/text") / name).write_text(secret)
    config = {"_name_or_path": secret, "text_config": {"name_or_path": secret, "cache": f"/srv/{secret}"}, "hidden": 3}
    write_json(Path("models/encoders/text/config.json"), config)
    image = {"source": f"/srv/{secret}", "tower": {"name": f"/srv/{secret}", "size": 3}}
    write_json(Path("models/encoders/encoders.json"), {"image": image, "text": {"source": "text"}})
    Lineage(("p1",), ("s1",), (f"/srv/{secret}",)).save(Path("models/encoders"))
    save_file({"a": torch.zeros(1)}, Path("models/encoders/text/model.safetensors"), {"format": "pt", "from": secret})
    metrics = {"text": {"captions": 3, "unmatched": [secret], secret: 1}, "genotype": {"tested": {"TP53": 1}}}
    write_json(Path("reports/train_encoders/metrics.json"), metrics)
    package_models(study_of(params), Path("out"), MINE)
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes() or secret in path.name]
    told = json.loads(Path("out/encoders/text/config.json").read_text())
    assert told == {"text_config": {"cache": FOLDER}, "hidden": 3}
    assert json.loads(Path("out/facts.json").read_text())["metrics"]["train_encoders"] == {"text captions": 3}
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("left out, since a package has no such file") == 4, "three files, and the samples' own codes"


def test_what_only_a_person_can_judge_is_printed(params, capsys):
    texts = params.model_copy(
        update={"train_denoiser": params.train_denoiser.model_copy(update={"conditions": ("text",)})}
    )
    make_part("data/tiles", "s1", tile_rows(2, caption=["H&E of Moe", "H&E, tumour"]), tiles(2))
    package_models(study_of(texts), Path("out"), Words("Slides of p1, and of p10."), names_outside(Study()))
    said = " ".join(capsys.readouterr().err.split())
    assert "the attribution has words that are ids of this study: p1" in said
    for place in ("licence", "names of classes", "data set's name"):
        assert f"the {place} has" not in said
    assert "None may be a name: Moe, of, tumour, E, H" in said
    assert "learnt from captions" in Path("out/README.md").read_text(encoding="utf-8")
    package_models(study_of(params), Path("clear"), MINE, HER2ST)
    assert "check: these ids leave clear: her2st:p1, her2st:p2, her2st:s1" in " ".join(capsys.readouterr().err.split())


def test_ids_in_the_licence_the_classes_and_the_data_set_s_name_are_printed(params, capsys):
    labels = params.tile.labels.model_copy(update={"classes": ("tumour of p2", "stroma")})
    telling = params.model_copy(
        update={
            "emit": params.emit.model_copy(update={"licence": "as agreed with p1"}),
            "tile": params.tile.model_copy(update={"labels": labels}),
        }
    )
    package_models(study_of(telling), Path("out"), MINE, names_outside(Study(), "ward-s1"))
    said = " ".join(capsys.readouterr().err.split())
    assert "the licence has words that are ids of this study: p1" in said
    assert "the names of classes has words that are ids of this study: p2" in said
    assert "the data set's name has words that are ids of this study: s1" in said


@pytest.mark.parametrize("map_input", ["concat", "spade"])
def test_large_files_are_divided_and_a_missing_one_is_named(params, map_input):
    specs = (ConditionSpec("mask", "map", 2, 0.1, ("background", "a")),)
    record = DenoiserRecord(specs, DenoiserTraining("v_prediction", "cosine", 1000, map_input, (4, 8, 8)))
    config = TrainDenoiser(channels=(16, 32), map_input=map_input)
    save_denoiser(UNet.build(config, specs, (4, 8, 8)), record, Path("models/denoiser"))
    Lineage(groups=("p1",)).save(Path("models/denoiser"))
    package_models(study_of(params), Path("whole"), MINE)
    package_models(study_of(params), Path("parts"), MINE, max_shard_size="60KB")
    parts = sorted(Path("parts/denoiser").glob("*-of-*.safetensors"))
    assert len(parts) > 1
    whole, divided = (load_denoiser(Path(name) / "denoiser", "cpu")[0].state_dict() for name in ("whole", "parts"))
    assert whole.keys() == divided.keys() and all(torch.equal(whole[name], divided[name]) for name in whole)
    parts[0].unlink()
    with pytest.raises(HistoloomError, match=parts[0].name):
        load_denoiser(Path("parts/denoiser"), "cpu")


def test_a_card_tables_cohorts_by_scale_and_names_what_was_held_out(params):
    for slide, dataset, split, mpp in (
        ("s1", "One", "train", 0.5),
        ("s2", "two", "train", 1.0),
        ("s3", "two", "test", 0.5),
    ):
        rows = tile_rows(3, slide_id=slide, split_group=slide, dataset=dataset, split=split, mpp=mpp)
        make_part("data/tiles", slide, rows, tiles(3))
    encoders = params.train_encoders.model_copy(update={"cohort": SlideColumns(columns=("dataset",))})
    denoiser = params.train_denoiser.model_copy(update={"conditions": ("cohort",)})
    study = study_of(params.model_copy(update={"train_encoders": encoders, "train_denoiser": denoiser}))
    package_models(study, Path("out"), MINE, names_outside(study, "one", "two", public=True))
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "| One | 0.5 | 3 |" in card and "| two | 1.0 | 3 |" in card
    assert "seen by no training: two:s3." in card


def test_public_is_of_a_data_set_that_is_named(params):
    Path("words.md").write_text("Mine.")
    done = CliRunner().invoke(cli, ["package", "out", "--attribution", "words.md", "--public"])
    assert done.exit_code == 2 and "--public needs --dataset NAME" in done.output and not Path("out").exists()


def test_an_encoder_of_tiles_goes_with_its_models_and_loads_from_the_package(params):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = TileEncoder(EncoderSizes(16, 4, 8))
    pictures = tiles(20)
    encoder = fitted_encoder(model, as_extractor(model, "cpu").features(pictures))
    encoder.save(Path("models/encoders/image"))
    write_json(Path("models/encoders/encoders.json"), {"image": {"source": "image"}})
    neighbours = {"tiles": 5, "neighbour": 0.6, "by_chance": 0.5, "of_efficientnet_lite0": 0.7}
    metrics = {"image": {"loss": 2.0, "effective_rank": 5.5, "neighbours": neighbours, "of patient-7": 1}}
    write_json(Path("reports/train_encoders/metrics.json"), metrics)
    config = params.train_encoders.image.model_copy(update={"source": "train"})
    encoders = params.train_encoders.model_copy(update={"image": config})
    denoiser = params.train_denoiser.model_copy(update={"conditions": ("image",)})
    package_models(
        study_of(params.model_copy(update={"train_encoders": encoders, "train_denoiser": denoiser})), Path("out"), MINE
    )
    told = json.loads(Path("out/facts.json").read_text())["metrics"]["train_encoders"]
    assert told["image neighbours of_efficientnet_lite0"] == 0.7 and "image of patient-7" not in told
    assert "Its encoder of tiles learnt from these slides" in Path("out/README.md").read_text(encoding="utf-8")
    assert load_params("out/params.yaml").train_encoders.image == config
    facts = json.loads(Path("out/encoders/encoders.json").read_text())["image"]
    rows = tile_rows(20)
    mine, theirs = (
        ImageCondition.load(Source((), 4, Path(folder), facts)).arrays(rows, lambda _: pictures)["image"]
        for folder in ("models/encoders", "out/encoders")
    )
    np.testing.assert_allclose(theirs, mine, atol=0.05)
