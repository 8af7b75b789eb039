"""The card of a packaged model, written from what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment

from histoloom.backbones.few_steps import read_few_steps
from histoloom.config import Params, load_params
from histoloom.data.commit import let_read
from histoloom.data.lineage_match import is_code

_CARD = """---
license: {{ params.emit.licence | lower }}
library_name: diffusers
tags: [histopathology, latent-diffusion, histoloom]
---
# {{ name }}

{% if params.train_denoiser.target.name == "latents" -%}
A latent diffusion model of histology: an autoencoder of {{ millions.autoencoder }} M parameters, a denoiser of \
{% else -%}
A diffusion model of histology: a denoiser of \
{% endif -%}
{{ millions.denoiser }} M, for tiles of {{ sides | join(" and ") }} px at {{ params.tile.mpp }} µm/px. Made with histoloom {{ version }}; `params.yaml`
says how it was made{% if earlier %}, after {{ earlier | join(", ") }}{% endif %}.

## Data, licence, attribution

{{ attribution }}

It saw {{ lineage.groups | length }} split groups of {{ lineage.slides | length }} slides, and no others.\
{% if lineage.unknown %} **Ancestors that nobody here knows:** {{ lineage.unknown | join(", ") }}.{% endif %}

{% if clear -%}
- Clear ids, of the public set {{ lineage.public | join(", ") }}: {{ clear | join(", ") }}. The leak gate of every study knows them.
{% endif -%}
{% if codes -%}
- Salted codes stand for {{ codes }} of the groups. The salt stays with whoever trained on them. Two studies of the same patients can't be \
matched by codes: ask the makers of this model whether it saw a patient of yours.
{% endif -%}
{% if text_learnt -%}
- Its text tower learnt from captions. Which words they had can be told from its weights.
{% endif -%}
{% if image_learnt -%}
- Its encoder of tiles learnt from these slides without labels.
{% endif -%}
{% if rna_learnt -%}
- Its expression encoder holds the mean and the spread of each gene over the train samples.
{% endif %}
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


def earlier_params(folder: Path) -> list[Path]:
    """The params of a package's earlier trainings, the oldest first."""
    return sorted(folder.glob("params-*.yaml"), key=lambda path: int(path.stem.removeprefix("params-")))


def write_model_card(folder: Path) -> None:
    """The package's card, from what lies in its folder, which is whole with it."""
    facts, conditions = (
        json.loads((folder / n).read_text(encoding="utf-8")) for n in ("facts.json", "denoiser/conditions.json")
    )
    earlier, params = earlier_params(folder), load_params(folder / "params.yaml")
    windows, groups = params.train_denoiser.windows_latent_px, facts["lineage"]["groups"]
    codes = sum(map(is_code, groups))
    learnt = {name for p in (params, *map(load_params, earlier)) for name in learnt_towers(p)}
    card = Environment(autoescape=False).from_string(_CARD).render(
        facts, conditions=conditions["conditions"], params=params, few_steps=read_few_steps(folder / "denoiser"),
        sides=[side * params.factor for side in windows] or [params.tile.tile_px],
        earlier=[path.name for path in earlier], codes=codes, clear=[name for name in groups if not is_code(name)],
        text_learnt="text" in learnt, rna_learnt="rna" in learnt,
        image_learnt="image" in learnt,
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")
    let_read(folder)


def learnt_towers(params: Params) -> Iterator[str]:
    """The conditions whose encoders were trained by these params."""
    encoders, names = params.train_encoders, params.train_denoiser.conditions
    trained = {"text": encoders.text.source, "rna": encoders.rna.init, "image": encoders.image.source}
    yield from (name for name, source in trained.items() if name in names and source == "train")
