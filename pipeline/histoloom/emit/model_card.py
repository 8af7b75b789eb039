"""The card of a packaged model, written from what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from histoloom.backbones.few_steps import read_few_steps
from histoloom.config import Params, load_params
from histoloom.data.commit import let_read
from histoloom.data.lineage_match import is_code
from histoloom.emit.card import CARDS
from histoloom.emit.model_index import standard_class


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
    card = CARDS.get_template("model_card.md.jinja").render(
        facts, conditions=conditions["conditions"], params=params, few_steps=read_few_steps(folder / "denoiser"),
        scales=sorted({row["mpp"] for row in facts.get("tiles", ())}) or [params.tile.mpp],
        sides=[side * params.factor for side in windows] or [params.tile.tile_px],
        earlier=[path.name for path in earlier], codes=codes, clear=[name for name in groups if not is_code(name)],
        text_learnt="text" in learnt, rna_learnt="rna" in learnt,
        image_learnt="image" in learnt,
        parts={part: standard_class(folder, part) for part in ("denoiser", "autoencoder")},
        present={part for part in ("denoiser", "autoencoder") if (folder / part / "config.json").is_file()},
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")
    let_read(folder)


def learnt_towers(params: Params) -> Iterator[str]:
    """The conditions whose encoders were trained by these params."""
    encoders, names = params.train_encoders, params.train_denoiser.conditions
    trained = {"text": encoders.text.source, "rna": encoders.rna.init, "image": encoders.image.source}
    yield from (name for name, source in trained.items() if name in names and source == "train")
