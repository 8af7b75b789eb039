"""A study's models as a package: half the bytes, with a card written from what the study recorded.

What leaves carries nothing of a patient: files, params and numbers by allow-lists, names as codes (emit/redaction.py).
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import histoloom
from histoloom.backbones.few_steps import read_few_steps, save_few_steps
from histoloom.backbones.unet import UNet
from histoloom.config import Params, load_params
from histoloom.config.denoiser_record import DenoiserRecord, read_denoiser_record
from histoloom.config.package import packaged
from histoloom.data.commit import write_json
from histoloom.data.lineage import read_lineage
from histoloom.data.lineage_match import without_region
from histoloom.data.rows import train_rows
from histoloom.data.slide_fields import chosen
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.emit.half_weights import MAX_SHARD_SIZE, copy_half
from histoloom.emit.model_card import earlier_params, learnt_towers, write_model_card
from histoloom.emit.model_index import write_model_index
from histoloom.emit.redaction import Names, names_outside, quoted, told_params
from histoloom.errors import HistoloomError
from histoloom.progress import console

PARTS = ("autoencoder", "denoiser", "encoders")
_NUMBERS = re.compile(
    r"psnr_db|ssim|tiles|steps|loss_last_100_steps|(text )?(recall_at_\d+(_by_chance)?|captions|tiles)"
    r"|rna (genes(_missing|_unknown)?|train_samples|tiles_without_profile|explained_variance_(train|held_out))"
    r"|image (loss|alignment|uniformity|effective_rank|size|tiles|neighbours (tiles|neighbour|by_chance|of_efficientnet_lite0))"
    r"|genotype train_samples"
)
"""Which of what was measured is told. How many patients have a mutation is not."""
_SHOWN_WORDS = 60


@dataclass(frozen=True)
class Words:
    """What a person says of a model, in Markdown.

    attribution : what the data's licence asks to be said.
    hardware : on what it was trained.
    limits : what it can't do, as a list.
    """

    attribution: str
    hardware: str = ""
    limits: str = ""

    @property
    def stripped(self) -> dict[str, str]:
        return {name: text.strip() for name, text in vars(self).items()}


def package_models(
    study: Study, folder: Path, words: Words, names: Names | None = None, max_shard_size: str = MAX_SHARD_SIZE
) -> None:
    """Write autoencoder, denoiser and encoders to `folder`, in half precision, with a card.

    Parameters
    ----------
    names : how what it saw is called outside; unstated, by codes.
    max_shard_size : larger files of weights are divided, as diffusers does.

    Raises
    ------
    HistoloomError
        when a model isn't there, or the folder holds something already.
    """
    params, models = study.params, study.models
    if missing := [part for part in PARTS if not (models / part).is_dir()]:
        raise HistoloomError(f"{models} holds no {missing[0]}: run dvc repro train_denoiser first.")
    if folder.exists() and any(folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty. Name a new folder.")
    names, name, target, before = names or names_outside(study), folder.name, folder, _begun_from(params)
    folder = target.with_name(f".{name}.new")  # renamed when it is whole
    shutil.rmtree(folder, ignore_errors=True)
    millions = {part: round(copy_half(models / part, folder / part, max_shard_size) / 1e6, 1) for part in PARTS}
    for part in PARTS:
        names.outside(read_lineage(models / part)).save(folder / part)
    _write_params(params.model_dump(mode="json", exclude_computed_fields=True), folder / "params.yaml")
    facts = {
        "name": name,
        "version": histoloom.__version__,
        **words.stripped,
        "millions": millions,
        "lineage": read_lineage(folder / "denoiser").record,
        "metrics": {stage: _metrics(study.reports(stage)) for stage in _trainings(params)},
        "training": _trained(params),
        **_seen(study, names),
    }
    if before:
        facts |= _with_before(facts, before, folder)
        if read_few_steps(before / "denoiser"):
            fact = "updates for few steps are of its own denoiser, and not taken over: distil this one anew"
            console.print(f"{before.name}'s {fact}.")
    write_json(folder / "facts.json", facts)
    write_model_index(folder)
    write_model_card(folder)
    _say_what_to_look_at(study, words, names)
    folder.replace(target)


def _seen(study: Study, names: Names) -> dict:
    """How many train tiles each cohort has at each scale, and the groups of public sets that no training saw."""
    if not study.tiles.is_dir():
        return {}
    rows = TileStore(study.tiles).rows()
    train, columns = rows[rows["split"] == "train"], study.params.train_encoders.cohort.columns
    kept_out = sorted(set(rows["split_group"]) - set(train["split_group"]))
    held_out = [f"{dataset}:{name}" for name in kept_out if (dataset := names.public_set(name))]
    facts: dict[str, Any] = {"held_out": held_out} if held_out else {}
    if "cohort" in study.params.train_denoiser.conditions:
        cohorts = [", ".join(map(str, of.values())) or "unstated" for of in chosen(train, columns)]
        counts = Counter(zip(cohorts, train["mpp"]))
        facts["tiles"] = [{"cohort": cohort, "mpp": mpp, "tiles": n} for (cohort, mpp), n in sorted(counts.items())]
    return facts


def _trainings(params: Params) -> tuple[str, ...]:
    """The stages whose numbers are told: of pixels there is no autoencoder."""
    latents = params.train_denoiser.target.name == "latents"
    return "train_encoders", *["train_autoencoder"] * latents, "train_denoiser"


def _begun_from(params: Params) -> Path | None:
    """The package that the study's denoiser was begun from, if it was."""
    if params.train_denoiser.init == "scratch":
        return None
    folder = Path(packaged(params.train_denoiser.init, "denoiser", params.train_denoiser.revision)).parent
    return folder if (folder / "facts.json").is_file() else None


def _trained(params: Params) -> list[dict]:
    """What was trained by these params, in their order."""
    ae, denoiser = params.train_autoencoder, params.train_denoiser
    windows = " and ".join(map(str, denoiser.windows_latent_px))
    rows = [
        ("autoencoder", ae.steps, ae.batch_size, ae.learning_rate),
        ("its decoder alone, against a critic", ae.decoder_steps, ae.batch_size, ae.learning_rate / 2),
        (
            f"denoiser, windows of {windows} latent px" if windows else "denoiser",
            denoiser.steps, denoiser.batch_size, denoiser.learning_rate,
        ),
    ]  # fmt: skip
    rows = rows if denoiser.target.name == "latents" else rows[2:]
    return [dict(zip(("what", "steps", "batch_size", "learning_rate"), row)) for row in rows if row[1]]


def _with_before(facts: dict, before: Path, folder: Path) -> dict:
    """Facts that go on from those of the package `before`, and its params, the oldest as params-1.yaml."""
    known = json.loads((before / "facts.json").read_text(encoding="utf-8"))
    for number, path in enumerate([*earlier_params(before), before / "params.yaml"], 1):
        _write_params(YAML(typ="safe").load(path.read_text(encoding="utf-8")), folder / f"params-{number}.yaml")
    return {
        "hardware": "\n".join(text for text in (known["hardware"], facts["hardware"]) if text),
        "metrics": {s: _told(known["metrics"].get(s, {})) | found for s, found in facts["metrics"].items()},
        "training": (known.get("training") or _trained(load_params(before / "params.yaml"))) + facts["training"],
    }


def _write_params(params: dict, path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(told_params(params), stream)


def package_few_steps(study: Study, folder: Path, names: Names | None = None) -> None:
    """Add to the package at `folder` what this study's denoiser learnt when it was distilled from the package's.

    What that denoiser saw joins the package's record, named as `names` says; unstated, by codes.

    Raises
    ------
    HistoloomError
        when there is no package, the study's denoiser wasn't distilled, or it isn't of the package's form.
    """
    student, teacher = study.denoiser, folder / "denoiser"
    mine, base = (read_denoiser_record(place) for place in (student, teacher))
    if mine is None or base is None:
        raise HistoloomError(f"{student if mine is None else teacher} holds no denoiser of histoloom's.")
    if mine.training.distilled is None or base.training.distilled is not None:
        wanted = f"{student} must be distilled (train_denoiser.distil)"
        raise HistoloomError(f"{wanted}, and {teacher} the one that it was distilled from.")
    if _form(mine) != _form(base):
        raise HistoloomError(f"{student} wasn't distilled from {teacher}: their conditions or their training differ.")
    names, known = names or names_outside(study), read_lineage(teacher)
    both = names.outside(known) | names.outside(read_lineage(student))
    both.save(teacher)  # first: no weights without what they saw
    save_few_steps(UNet.load(teacher), UNet.load(student), mine.training.distilled, teacher)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    write_json(folder / "facts.json", facts | {"lineage": read_lineage(teacher).record})
    write_model_index(folder)
    write_model_card(folder)


def _form(record: DenoiserRecord) -> tuple:
    """What a teacher and its student have in common."""
    conditions, of = [(s.name, s.shape, s.size, s.channels) for s in record.conditions], record.training
    return conditions, of.prediction, of.schedule, of.betas, of.train_timesteps, of.map_input


def _metrics(reports: Path) -> dict:
    """A stage's numbers, those that lie deeper by their path."""
    path = reports / "metrics.json"
    return _told(_flat(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else {}


def _told(numbers: dict) -> dict:
    return {k: v for k, v in numbers.items() if _NUMBERS.fullmatch(k) and isinstance(v, int | float | None)}


def _flat(values: dict, before: str = "") -> dict:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{before}{key} ")
        else:
            out[before + key] = round(value, 4) if isinstance(value, float) else value
    return out


def _say_what_to_look_at(study: Study, words: Words, names: Names) -> None:
    """Print what only a person can judge: names that leave, ids in their own words, the captions' words."""
    params, seen = study.params, read_lineage(study.denoiser)
    own = {*seen.groups, *seen.slides}
    texts = words.stripped | {
        "licence": params.emit.licence,
        "names of classes": ", ".join((*params.tile.labels.classes, *params.tile.masks.classes)),
        "data set's name": names.dataset,
    }
    if clear := sorted(f"{dataset}:{name}" for name in own if (dataset := names.public_set(name))):
        console.print(f"check: these ids leave clear: {', '.join(clear)}", markup=False)
    for name, text in texts.items():
        if found := quoted(text, {without_region(one) for one in own if not names.public_set(one)}):
            console.print(f"check: the {name} has words that are ids of this study: {', '.join(found)}", markup=False)
    if "text" in learnt_towers(params):
        console.print(f"check: {_words_of_captions(study.tiles)}", markup=False)


def _words_of_captions(tiles: Path) -> str:
    said = "the text tower learnt the words of this study's captions, and they can be told from its weights. "
    if not tiles.is_dir():
        return said + f"{tiles} isn't here to list them."
    captions = set(train_rows(TileStore(tiles))["caption"].fillna(""))
    count = Counter(word for caption in captions for word in set(re.findall(r"\w+", caption)))
    rarest = [word for word, _ in sorted(count.items(), key=lambda item: (item[1], item[0]))]
    more = f" and {len(rarest) - _SHOWN_WORDS} more" if len(rarest) > _SHOWN_WORDS else ""
    return f"{said}None may be a name: {', '.join(rarest[:_SHOWN_WORDS])}{more}"
