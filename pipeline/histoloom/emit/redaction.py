"""What a package may tell of names, places and params: allow-lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import pandas as pd
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from histoloom.config.package import root
from histoloom.data.codes import read_salt
from histoloom.data.lineage import Lineage
from histoloom.data.lineage_match import coded, is_code, without_region
from histoloom.data.schema import DATASET
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.progress import console

FOLDER = "folder/"
"""What params tell of a source that is a folder; a slash, since they take it for one."""
_WORDS = ("scratch", "train", "efficientnet-lite0", "inception-v3")
_HUB = re.compile(r"(?:timm:)?hf[-_]hub:[\w.-]+/[\w.-]+(@[\w.-]+)?|transformers:(?P<read>[\w.-]+/[\w.-]+)")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_KEPT = {
    "": "seed",
    "tile": "mpp more_mpp upsample tile_px stride_px stain",
    "tile.tissue": "mpp min_fraction min_od min_area_um2",
    "tile.labels": "source classes min_fraction spot_radius_um unlabelled fraction fraction_of",
    "tile.masks": "source classes",
    "tile.split": "group",
    "train_encoders.text": "source revision max_tokens padding image_px width layers heads context_length steps batch_size learning_rate",
    "train_encoders.rna": "key init transform max_genes hidden code beta steps batch_size learning_rate",
    "train_encoders.genotype": "key",
    "train_encoders.image": "source method image_px width size steps batch_size learning_rate",
    "train_autoencoder": "init revision arch latent_channels down_factor channels blocks crop_px kl_weight detail_weight scale "
    "perceptual_weight steps decoder_steps critic_weight batch_size learning_rate mixed_precision",
    "encode": "batch_size symmetries mask_detail precision edges",
    "train_denoiser": "init revision adapt lora_rank few_steps target conditions drop map_input channels layers_per_block "
    "attention_head_dim attention prediction schedule betas train_timesteps ema_decay steps batch_size windows_latent_px "
    "learning_rate warmup_steps mixed_precision",
    "train_denoiser.loss_weight": "kind gamma k boundary",
    "train_denoiser.distil": "guidance guidance_interval steps teacher_steps",
    "emit": "licence",
}
"""Section to those of its keys that describe how a model was made, and name nothing of whom or from where."""
_SOURCES = (
    ("train_encoders.text", "source"),
    ("train_encoders.rna", "init"),
    ("train_encoders.image", "source"),
    ("train_autoencoder", "init"),
    ("train_denoiser", "init"),
)


@dataclass(frozen=True)
class Names:
    """The names under which a model's record leaves: codes, with a data set's name before them where there is one.

    clear : groups and slides of public data sets, which keep their names, to the name of their set.
    own : groups and slides of this study, which leave by no name that only looks like one of a package's.
    """

    dataset: str
    salt: bytes
    clear: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def outside(self, lineage: Lineage) -> Lineage:
        """A record as it may leave. Names that came with a package, codes and those of public sets, stay as they are."""
        groups, slides = (
            {name if self._settled(name, lineage) else self._of(kind, name) for name in names}
            for kind, names in (("g", lineage.groups), ("s", lineage.slides))
        )
        public = {*lineage.public, *map(self.public_set, (*lineage.groups, *lineage.slides))} - {""}
        unknown = {told_source(source).replace(FOLDER, "a folder") for source in lineage.unknown}
        return Lineage(*(tuple(sorted(names)) for names in (groups, slides, unknown, public)))

    def _of(self, kind: str, name: str) -> str:
        if dataset := self.public_set(name):
            return f"{dataset}:{name.removeprefix(f'{dataset}:')}"
        return (f"{self.dataset}:" if self.dataset else "") + coded(kind, name, self.salt)

    def public_set(self, name: str) -> str:
        """The public set that a group, a slide, or the slide of a region is of; empty for none."""
        return self.clear.get(name) or self.clear.get(without_region(name), "")

    def _settled(self, name: str, lineage: Lineage) -> bool:
        if name in self.own or without_region(name) in self.own:
            return False
        return is_code(name) or name.startswith(tuple(f"{dataset}:" for dataset in lineage.public))


def names_outside(study: Study, *datasets: str, public: bool = False) -> Names:
    """How this study's groups and slides are called outside.

    datasets : what is put before codes; of a public package, the sets whose ids stay clear.

    Of a public package, slides that state another data set, and their groups, leave as codes all the same. So do those that state
    none, where any states one.

    Raises
    ------
    HistoloomError
        for a name that is none; where `public` names no data set, or nothing tells which names are this study's.
    """
    datasets = tuple(filter(None, datasets))
    if wrong := [name for name in datasets if not DATASET.fullmatch(name)]:
        how = "use letters, digits, '-', '_' and '.', as in camelyon16"
        raise HistoloomError(f"'{wrong[0]}' can't name a data set: {how}.")
    if public and not datasets:
        raise HistoloomError("--public needs --dataset NAME: the public set whose ids stay clear.")
    if len(datasets) > 1 and not public:
        raise HistoloomError("several --dataset need --public: codes have one name before them.")
    tiles, before = study.tiles, "".join(datasets) if len(datasets) == 1 else ""
    if not tiles.is_dir():
        if not public:
            return Names(before, read_salt(study.salt))
        why = "to know which names are of the set: run dvc repro tile, or dvc pull"
        raise HistoloomError(f"--public needs {tiles}, {why}.")
    rows = TileStore(tiles).rows()
    own = frozenset({*rows["split_group"], *rows["slide_id"]})
    return Names(before, read_salt(study.salt), _clear(rows, datasets) if public else {}, own)


def _clear(rows: pd.DataFrame, datasets: tuple[str, ...]) -> dict[str, str]:
    """Groups and slides of these data sets alone. Where no slide states one, all are taken to be of the one that is named."""
    stated = rows.get("dataset", pd.Series("", rows.index)).fillna("").astype(str).str.casefold()
    if not stated.any():
        if len(datasets) > 1:
            raise HistoloomError("several --dataset need slides that state theirs: add the column `dataset`.")
        stated[:] = datasets[0].casefold()
    if blank := sorted(set(rows.loc[stated == "", "slide_id"])):
        console.print(f"these slides state no `dataset`, and leave as codes: {', '.join(blank)}", markup=False)
    clear: dict[str, str] = {}
    for dataset in datasets:
        mine = stated == dataset.casefold()
        if not mine.any():
            raise HistoloomError(f"no slide states the data set '{dataset}'.")
        of_others = {*rows.loc[~mine, "split_group"], *rows.loc[~mine, "slide_id"]}
        clear |= dict.fromkeys({*rows.loc[mine, "split_group"], *rows.loc[mine, "slide_id"]} - of_others, dataset)
    return clear


def is_path(text: str) -> bool:
    """Whether a text says where something lies on a machine, rather than which model of a hub it is."""
    place = Path(text)
    if place.is_absolute() or PureWindowsPath(text).drive or "\\" in text or text.startswith((".", "~")):
        return True
    return "/" in text and (text.count("/") > 1 or place.exists() or Path(place.parts[0]).is_dir())


def told_source(source: str) -> str:
    """A model's source as it may be told: a packaged model's name or a hub's id; of a folder, only that it is one."""
    if source in _WORDS or (re.fullmatch(r"[\w.-]+", source) and (root() / source).is_dir()):
        return source
    if source.startswith("timm:") and ":" not in (name := source.removeprefix("timm:")):
        import timm

        return source if timm.is_model(name.partition(".")[0]) else FOLDER
    if found := _HUB.fullmatch(source):
        return FOLDER if found["read"] and Path(found["read"]).exists() else source
    return source if _NAME.fullmatch(source) and not is_path(source) and _was_fetched(source) else FOLDER


def _was_fetched(name: str) -> bool:
    """Whether this machine has files of a hub's model: `ORG/NAME` alone may also have been a folder."""
    place = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots")
    return place.is_dir() and any(place.iterdir())


def told_params(stated: dict) -> dict:
    """Params as they may be told: the keys that describe the making, and of sources no place."""
    out: dict = {}
    for place, names in _KEPT.items():
        found = _section(stated, place)
        if kept := {name: found[name] for name in names.split() if name in found}:
            _section(out, place, make=True).update(kept)
    for place, name in _SOURCES:
        section = _section(out, place)
        if section.get(name) is not None:
            section[name] = told_source(section[name])
    return out


def _section(params: dict, place: str, *, make: bool = False) -> dict:
    for step in filter(None, place.split(".")):
        params = params.setdefault(step, {}) if make else params.get(step) or {}
    return params


def quoted(text: str, names: Iterable[str]) -> list[str]:
    """Those of the names that a text has as words of their own."""
    return [name for name in sorted(names) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
