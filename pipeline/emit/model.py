"""A study's models as a package: half the bytes, with a card written from what the study recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from jinja2 import Environment
from safetensors import safe_open
from safetensors.torch import save_file

import pipeline
from pipeline.conditions.bus import ConditionSpec
from pipeline.config import Params, load_params
from pipeline.data.commit import let_read, write_json
from pipeline.errors import HistoloomError
from pipeline.models.denoiser import load_unet, read_conditions
from pipeline.models.few_steps import read_few_steps, save_few_steps
from pipeline.models.lineage import Lineage, read_lineage
from pipeline.models.pretrained import packaged
from pipeline.progress import console

PARTS = ("autoencoder", "denoiser", "encoders")
_LEFT_OUT = {"codes.parquet"}  # profiles of the samples themselves
_CARD = """---
license: {{ params.emit.licence | lower }}
library_name: diffusers
tags: [histopathology, latent-diffusion, histoloom]
---
# {{ name }}

A latent diffusion model of histology: an autoencoder of {{ millions.autoencoder }} M parameters, a denoiser of \
{{ millions.denoiser }} M, for tiles of {{ sides | join(" and ") }} px at {{ params.tile.mpp }} µm/px. Made with histoloom {{ version }}; `params.yaml`
is what made it{% if earlier %}, after {{ earlier | join(", ") }}{% endif %}.

## Data, licence, attribution

{{ attribution }}

It saw {{ lineage.groups | length }} split groups ({{ lineage.groups | join(", ") }}) of {{ lineage.slides | length }} \
slides, and no others.{% if lineage.unknown %} **Ancestors that nobody here knows:** {{ lineage.unknown | join(", ") }}.{% endif %}

## Conditions

{% for c in conditions -%}
- `{{ c.name }}`, a {{ c.shape }} of {{ c.size }} channels{% if c.channels and c.channels | length <= 8 %}: \
{{ c.channels | join(", ") }}{% endif %}; left out of {{ (100 * c.drop) | round | int }} % of the tiles in training.
{% endfor %}
## Training

| in this order | steps | batch | learning rate |
|---|---|---|---|
{% for row in training -%}
| {{ row.what }} | {{ row.steps }} | {{ row.batch_size }} | {{ row.learning_rate }} |
{% endfor %}
{% if hardware -%}
{{ hardware }}
{% endif %}
{% if few_steps -%}
## Few steps

`denoiser/few_steps` holds low-rank updates (rank {{ few_steps.rank }}) with which the denoiser takes {{ few_steps.steps }} steps of DDIM: \
without guidance as it is, guided where it was adapted. They were read off a copy that was distilled (Salimans & Ho 2022), and leave out \
{{ (100 * few_steps.left_out_of_squared_difference) | round(1) }} % of the squared difference.

{% endif -%}
## Measured

By the stages that trained it{% if earlier %}, each number of the last training that took it{% endif %}:

{% for stage, values in metrics.items() -%}
{% for key, value in values.items() -%}
- {{ stage }}, {{ key | replace("_", " ") }}: {{ value }}
{% endfor -%}
{% endfor %}
## Limits

- It knows the tissue, the stain and the scanner of the slides above, and nothing else.
{% if limits -%}
{{ limits }}
{% endif -%}
- Weights are stored as fp16. A tile that it makes adds no patient.
- Not for diagnosis.
"""


def package_models(
    params: Params,
    folder: Path,
    attribution: str,
    hardware: str = "",
    dataset: str = "",
    limits: str = "",
    models: Path = Path("models"),
) -> None:
    """Write autoencoder, denoiser and encoders to `folder`, in half precision, with a card.

    Parameters
    ----------
    attribution : what the data's licence asks to be said, in Markdown.
    hardware : on what it was trained, in words.
    dataset : put before the groups and slides of the lineage record ('her2st' makes 'C2' of it 'her2st:C2'), so that they are
        not taken for another study's of the same name.
    limits : what it can't do, as a list in Markdown, for the card.

    Raises
    ------
    HistoloomError
        when a model isn't there, or the folder holds something already.
    """
    if missing := [part for part in PARTS if not (models / part).is_dir()]:
        raise HistoloomError(f"{models} holds no {missing[0]}: run dvc repro train_denoiser first.")
    if folder.exists() and any(folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty. Name a new folder.")
    name, target, before = folder.name, folder, _begun_from(params)
    folder = target.with_name(f".{name}.new")  # renamed when it is whole
    shutil.rmtree(folder, ignore_errors=True)
    millions = {part: round(_copy_half(models / part, folder / part) / 1e6, 1) for part in PARTS}
    for part in PARTS if dataset else ():
        lineage = read_lineage(folder / part)
        new = lineage.without(read_lineage(before / part)) if before else lineage
        (lineage.without(new) | _named_apart(new, dataset)).save(folder / part)
    shutil.copy("params.yaml", folder / "params.yaml")
    metrics = {stage: _metrics(stage) for stage in ("train_encoders", "train_autoencoder", "train_denoiser")}
    facts = {
        "name": name,
        "version": pipeline.__version__,
        "attribution": attribution.strip(),
        "hardware": hardware.strip(),
        "limits": limits.strip(),
        "millions": millions,
        "lineage": read_lineage(folder / "denoiser").record,
        "metrics": metrics,
        "training": _trained(params),
    }
    if before:
        facts |= _with_before(facts, before, folder)
        if read_few_steps(before / "denoiser"):
            console.print(
                f"{before.name}'s updates for few steps are of its own denoiser, and not taken over: distil this one anew."
            )
    write_json(folder / "facts.json", facts)
    _write_card(folder)
    folder.replace(target)


def _begun_from(params: Params) -> Path | None:
    """The package that the study's denoiser was begun from, if it was."""
    if params.train_denoiser.init == "scratch":
        return None
    folder = Path(packaged(params.train_denoiser.init, "denoiser")).parent
    return folder if (folder / "facts.json").is_file() else None


def _trained(params: Params) -> list[dict]:
    """What was trained by these params, in their order."""
    ae, denoiser = params.train_autoencoder, params.train_denoiser
    windows = " and ".join(map(str, denoiser.windows_latent_px))
    rows = (
        ("autoencoder", ae.steps, ae.batch_size, ae.learning_rate),
        ("its decoder alone, against a critic", ae.decoder_steps, ae.batch_size, ae.learning_rate / 2),
        (
            f"denoiser, windows of {windows} latent px" if windows else "denoiser",
            denoiser.steps, denoiser.batch_size, denoiser.learning_rate,
        ),
    )  # fmt: skip
    return [dict(zip(("what", "steps", "batch_size", "learning_rate"), row)) for row in rows if row[1]]


def _earlier(folder: Path) -> list[Path]:
    """The params of a package's earlier trainings, the oldest first."""
    return sorted(folder.glob("params-*.yaml"), key=lambda path: int(path.stem.removeprefix("params-")))


def _with_before(facts: dict, before: Path, folder: Path) -> dict:
    """Facts that go on from those of the package `before`; its params are copied, the oldest as params-1.yaml."""
    known = json.loads((before / "facts.json").read_text(encoding="utf-8"))
    for number, path in enumerate([*_earlier(before), before / "params.yaml"], 1):
        shutil.copy(path, folder / f"params-{number}.yaml")
    trained = known.get("training") or _trained(load_params(before / "params.yaml"))
    return {
        "hardware": "\n".join(text for text in (known["hardware"], facts["hardware"]) if text),
        "metrics": {stage: known["metrics"].get(stage, {}) | found for stage, found in facts["metrics"].items()},
        "training": trained + facts["training"],
    }


def package_few_steps(folder: Path, dataset: str = "", models: Path = Path("models")) -> None:
    """Add to the package at `folder` what this study's denoiser learnt when it was distilled from the package's.

    What that denoiser saw joins the package's record, with `dataset` before what isn't in it already.

    Raises
    ------
    HistoloomError
        when there is no package, the study's denoiser wasn't distilled, or it isn't of the package's form.
    """
    student, teacher = models / "denoiser", folder / "denoiser"
    found = {place: read_conditions(place) for place in (student, teacher)}
    if missing := [place for place, read in found.items() if read is None]:
        raise HistoloomError(f"{missing[0]} holds no denoiser of histoloom's.")
    if not found[student][1].get("distilled") or found[teacher][1].get("distilled"):
        raise HistoloomError(
            f"{student} must be distilled (train_denoiser.distil), and {teacher} the one that it was distilled from."
        )
    if len({_form(*read) for read in found.values()}) > 1:
        raise HistoloomError(f"{student} wasn't distilled from {teacher}: their conditions or their training differ.")
    known = read_lineage(teacher)
    new = read_lineage(student).without(known)
    (known | (_named_apart(new, dataset) if dataset else new)).save(teacher)  # first: no weights without what they saw
    save_few_steps(load_unet(teacher), load_unet(student), found[student][1]["distilled"], teacher)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    write_json(folder / "facts.json", facts | {"lineage": read_lineage(teacher).record})
    _write_card(folder)


def _form(specs: tuple[ConditionSpec, ...], training: dict) -> tuple:
    """What a teacher and its student have in common."""
    conditions = ((s.name, s.shape, s.size, s.channels) for s in specs)
    return *conditions, *(training[name] for name in ("prediction", "schedule", "train_timesteps", "map_input"))


def _write_card(folder: Path) -> None:
    """The package's card, from what lies in its folder, which is whole with it."""
    facts, conditions = (
        json.loads((folder / n).read_text(encoding="utf-8")) for n in ("facts.json", "denoiser/conditions.json")
    )
    params = load_params(folder / "params.yaml")
    windows = params.train_denoiser.windows_latent_px
    sides = [side * params.train_autoencoder.down_factor for side in windows] or [params.tile.tile_px]
    card = Environment(autoescape=False).from_string(_CARD).render(
        facts, conditions=conditions["conditions"], params=params, few_steps=read_few_steps(folder / "denoiser"),
        sides=sides, earlier=[path.name for path in _earlier(folder)],
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")
    let_read(folder)


def _named_apart(lineage: Lineage, dataset: str) -> Lineage:
    groups, slides = (tuple(f"{dataset}:{name}" for name in names) for names in (lineage.groups, lineage.slides))
    return Lineage(groups, slides, lineage.unknown)


def _copy_half(source: Path, target: Path) -> int:
    """Copy a model's folder, its weights in half precision; returns how many there are."""
    count = 0
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p.name not in _LEFT_OUT):
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".safetensors":
            shutil.copy(path, out)
            if path.name == "config.json":
                _without_place(out)
            continue
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, no mapping
            halved = {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
            if bad := [n for n, t in halved.items() if not torch.isfinite(t).all()]:
                raise HistoloomError(f"{path}: '{bad[0]}' doesn't fit half precision.")
            save_file(halved, out, stored.metadata())
        count += sum(t.numel() for t in tensors.values())
    return count


def _without_place(path: Path) -> None:
    """diffusers writes into a model's config from which folder it was begun, which is of whoever packages it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        write_json(path, config)


def _metrics(stage: str) -> dict:
    """A stage's numbers, those that lie deeper by their path."""
    path = Path("reports") / stage / "metrics.json"
    return _flat(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _flat(values: dict, before: str = "") -> dict:
    out = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{before}{key} ")
        else:
            out[before + key] = round(value, 4) if isinstance(value, float) else value
    return out
