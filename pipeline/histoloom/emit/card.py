"""The dataset card, written from facts."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment

_CARD = """---
license: {{ licence | lower | tojson }}
pretty_name: {{ name | tojson }}
tags: [histopathology, synthetic, histoloom]
{% if "parquet" in formats -%}
configs:
- config_name: default
  data_files:
{%- for split in counts %}
  - {split: {{ "validation" if split == "val" else split }}, path: "parquet/{{ split }}-*.parquet"}
{%- endfor %}
{% endif -%}
---
# {{ name }}

Tiles of {{ tile_px }} px at {{ mpp }} µm/px. The train split holds real tiles and synthetic tiles that passed the
filters; val and test hold real tiles alone. Made with histoloom {{ version }}.

## Counts

| split | source | {% for label in classes %}{{ label | replace("|", "&#124;") }} | {% endfor %}all |
|---|---|{% for _ in classes %}---|{% endfor %}---|
{% for split, sources in counts.items() -%}
{% for source, by_label in sources.items() -%}
| {{ split }} | {{ source }} | {% for label in classes %}{{ by_label.get(label, 0) }} | {% endfor %}{{ by_label.values() | sum }} |
{% endfor -%}
{% endfor %}
{% if labelled -%}
The classes are numbered from 0, in the order of the table: so are the labels of Parquet, `cls` in WebDataset and in
`metadata.jsonl`, and the folders of ImageFolder, in each split. `classes.json` says the same.
{% else -%}
The study has no labels: `{{ classes[-1] }}` stands for all of its tiles.
{% endif -%}
{% for split, by_source in unlabelled.items() -%}
{% for source, count in by_source.items() %}
Left out, since they have no label: {{ count }} {{ source }} tile{{ "" if count == 1 else "s" }} of {{ split }}.
{% endfor -%}
{% endfor %}
## Licence

{{ licence }}, as the study states it. The real tiles remain under the licences of their slides.

## Provenance

{% for generator, record in generators.items() -%}
- Generator `{{ generator[:16] }}` (sha256) saw {{ record.groups | length }} groups of {{ record.slides | length }} slides, {{ "all" if record.groups | length == record.own else record.own }} of this study's train split{{ "" if record.groups | length == record.own else " and the others of models that it began from" }}.
{% endfor -%}
- Columns: `source` (real or synthetic), `patient_code` and `slide_code` (salted codes), `split`, `label`, `mpp`; for synthetic tiles also `generator_sha256`, `seed`, `scheduler`, `steps`, `precision`, `window_layout` (of those cut from woven slides) and `guidance` (JSON).
{% if unknown -%}
- **Unknown ancestors were allowed:** {{ unknown | join(", ") }}. What these models were trained on is not known here.
{% endif %}
## Limits

- Of {{ synthetic }} synthetic tiles, {{ accepted }} passed the filters; see the study's report for the reasons of the others.
{% for label, count in refused.items() -%}
- Of `{{ label }}`, no synthetic tile is here: of {{ count.synthetic }}, {{ count.passed }} passed the filters, and the generator was found not good enough for it.
{% endfor -%}
{% for label, count in not_told.items() -%}
- Of `{{ label }}`, {{ count }} synthetic tile{{ "" if count == 1 else "s" }} passed without being compared with real held-out tiles, which were too few.
{% endfor -%}
- A synthetic tile shows what a model learnt from the train split. It adds no patient.
{% if patients == 1 -%}
- One patient: this shows that the machinery runs, not that it helps.
{% endif -%}
{% if not captions -%}
- Captions were withheld, since they may quote reports.
{% endif -%}
- Not for diagnosis.
"""


@dataclass(frozen=True)
class CardFacts:
    """All that the card says.

    counts, unlabelled : split to source to label to tiles, and split to source to tiles that were left out.
    generators : sha256 to a lineage record and, in `own`, how many of its groups are this study's.
    unknown : ancestors that nobody knows, as they may be named outside.
    refused : label of which too little passed, to how many were `synthetic` and how many of them `passed`.
    not_told : label to its accepted tiles of which the filter `realism` could not tell.
    synthetic, accepted : synthetic tiles to augment, and those of them that passed the filters.
    patients : of the real tiles. captions : whether captions leave.
    """

    name: str
    licence: str
    version: str
    formats: tuple[str, ...]
    tile_px: int
    mpp: float
    classes: tuple[str, ...]
    labelled: bool
    counts: dict[str, dict[str, dict[str, int]]]
    unlabelled: dict[str, dict[str, int]]
    generators: dict[str, dict]
    unknown: list[str]
    refused: dict[str, dict[str, int]]
    not_told: dict[str, int]
    synthetic: int
    accepted: int
    patients: int
    captions: bool


def write_card(facts: CardFacts) -> str:
    """The card as Markdown with the front matter that HF's hub reads."""
    template = Environment(autoescape=False, trim_blocks=False).from_string(_CARD)
    return template.render(**vars(facts))
