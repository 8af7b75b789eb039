"""Which files a set has, and of which form they are."""

from __future__ import annotations

from pathlib import Path

from histoloom.config import TileSet
from histoloom.config.tile_sets import SetFormat
from histoloom.data.found import Found
from histoloom.data.tile_sets.folders import list_csv
from histoloom.data.tile_sets.listing import NotListed

_ENDINGS: dict[str, SetFormat] = {
    ".csv": "csv", ".tsv": "csv", ".tar": "webdataset", ".parquet": "parquet", ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5",
}  # fmt: skip
_SHARDS = ("webdataset", "parquet", "npz", "hdf5")


def files_of_set(config: TileSet) -> tuple[SetFormat, list[Path]]:
    """The form of a set, and its files in order: of a folder of pictures, the folder; of a folder of shards, these.

    Raises
    ------
    NotListed
        when nothing lies there, or nothing of one form.
    """
    path = Path(config.path)
    if any(mark in config.path for mark in "*?[") and not path.exists():
        parts = path.parts
        first = next(place for place, part in enumerate(parts) if any(mark in part for mark in "*?["))
        found = sorted(Path(*parts[:first]).glob("/".join(parts[first:])))
        if not found:
            raise NotListed("no file has such a name.", "mend path.")
        return _one_form(config, found), found
    if path.is_dir():
        return _of_folder(config, path)
    if not path.is_file():
        raise NotListed("nothing lies there.", "mend path, which counts from the study's folder.")
    return _one_form(config, [path]), [path]


def _of_folder(config: TileSet, folder: Path) -> tuple[SetFormat, list[Path]]:
    shards = [path for path in sorted(folder.iterdir()) if _ENDINGS.get(path.suffix.lower()) in _SHARDS]
    if config.format in _SHARDS or (config.format is None and shards):
        mine = [path for path in shards if config.format in (None, _ENDINGS[path.suffix.lower()])]
        if not mine:
            raise NotListed(f"it holds no file of format {config.format}.", "mend path or format.")
        return _one_form(config, mine), mine
    if config.format == "csv":
        raise NotListed("it is a folder, and format is csv.", "name the CSV.")
    return "image_folder", [folder]


def _one_form(config: TileSet, files: list[Path]) -> SetFormat:
    if config.format == "image_folder":
        raise NotListed("it is no folder, and format is image_folder.", "name the folder, or leave format out.")
    if config.format is not None:
        return config.format
    form, *others = {_ENDINGS.get(path.suffix.lower()) for path in files}
    if form is None or others:
        endings = ", ".join(sorted({path.suffix or path.name for path in files}))
        remedy = f"use {', '.join(_ENDINGS)}, or state format."
        raise NotListed(f"its files end in {endings}, which isn't one known form.", remedy)
    return form


def named_by(config: TileSet) -> list[Path]:
    """All files and folders that a set names, to be hashed; of one that can't be listed, its path."""
    named = [Path(name) for name in (config.masks, config.table) if name]
    try:
        form, files = files_of_set(config)
        pictures = list_csv(config, Found(config.path)).files if form == "csv" else ()
    except NotListed:
        return [Path(config.path), *named]
    return [*files, *named, *pictures]
