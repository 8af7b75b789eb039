"""The files that params name, wherever they lie, and what they hold: beside params, what a stage reads of the user's."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from histoloom.config.models import ModelParams
from histoloom.config.package import packaged
from histoloom.config.pipeline import in_pipeline
from histoloom.config.tile import Tile
from histoloom.data.commit import digest, sha256_file, write_json
from histoloom.data.manifest import check_manifest
from histoloom.data.slide_files import slide_files
from histoloom.data.study_folder import Study
from histoloom.data.tile_sets.files import named_by
from histoloom.progress import track

_MISSING, _CIRCLE = "missing", "circle"
_BESIDE_SLIDES = ("annotations", "mask", "predicted", "instances", "partner")
"""What slides.csv names beside a slide's own file."""


class Hashes:
    """sha256 of files, read again only where size, time or inode changed, as DVC does it."""

    def __init__(self, path: Path):
        self.path = path
        self.kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.asked: dict[str, Any] = {}

    def of(self, path: Path, within: tuple[Path, ...] = ()) -> str:
        """Of a file, or of a folder's names and files, links followed; 'missing' where there is neither.

        within : the folders that it lies in, so that a link to one of them is followed no further.
        """
        if path.is_dir():
            if (folder := path.resolve()) in within:
                return _CIRCLE
            with os.scandir(folder) as entries:
                inside = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
            return digest({entry.name: self._inside(entry, (*within, folder)) for entry in inside})
        return self._file(str(path.resolve()), path.stat()) if path.is_file() else _MISSING

    def of_all(self, paths: Iterable[Path]) -> list[str]:
        """Of each of many files or folders; those that lie beside each other are found at little cost."""
        folders: dict[Path, str] = {}
        out = []
        for path in paths:
            try:
                found = os.lstat(path)
            except OSError:
                out.append(_MISSING)
                continue
            if not stat.S_ISREG(found.st_mode):
                out.append(self.of(path))
                continue
            folder = folders.get(path.parent) or folders.setdefault(path.parent, str(path.parent.resolve()))
            out.append(self._file(f"{folder.rstrip('/')}/{path.name}", found))
        return out

    def _inside(self, entry: os.DirEntry, within: tuple[Path, ...]) -> str:
        if entry.is_symlink() or not entry.is_file():
            return self.of(Path(entry.path), within)
        return self._file(entry.path, entry.stat())

    def _file(self, place: str, found: os.stat_result) -> str:
        """place : where it lies, without links."""
        seen = [found.st_size, found.st_mtime_ns, found.st_ino]
        kept = self.kept.get(place)
        self.asked[place] = kept if kept and kept[:3] == seen else [*seen, sha256_file(Path(place))]
        return self.asked[place][3]

    def save(self, *, all_asked: bool) -> None:
        """Keep the hashes; those that were not asked for are forgotten where all were asked for."""
        keep = self.asked if all_asked else self.kept | self.asked
        if keep != self.kept:
            write_json(self.path, keep)


def files_of(study: Study, *sections: str) -> dict[str, dict[str, Any]]:
    """Section of params to the keys that name files, to what these hold; None where a key names none.

    Hashes are kept, so that a file that didn't change is not read again.
    """
    hashes = Hashes(study.hashes)
    found = {section: _READERS[section](study, hashes) for section in sections or _READERS}
    hashes.save(all_asked=not sections)
    return found


def resolved(study: Study, keys: Iterable[str]) -> dict[str, Any]:
    """Keys of the resolved params, such as 'tile.labels' or 'files.tile', to their values."""
    keys = tuple(keys)
    meant: dict[str, Any] = study.stated.model_dump(mode="json")
    if "models" in keys:
        meant["models"] = resolved_models(study)
    if sections := [key.removeprefix("files.") for key in keys if key.startswith("files.")]:
        meant["files"] = files_of(study, *sections)
    return {key: reduce(lambda inner, name: inner[name], key.split("."), meant) for key in keys}


def resolved_models(study: Study) -> dict[str, Any]:
    """What each of several models states, and under `files` what the files hold that it names."""
    sections = tuple(section for section in ModelParams.model_fields if section in _READERS)
    return {
        name: own.model_dump(mode="json") | {"files": files_of(study.of(name), *sections)}
        for name, own in study.stated.models.items()
    }


def _held(hashes: Hashes, *names: str | None) -> str | None:
    found = [hashes.of(Path(name)) for name in names if name]
    return digest(found) if found else None


def _of_source(source: str | None, hashes: Hashes, part: str = "", revision: str | None = None) -> str | None:
    """Of a model's folder, or of the part of a packaged model; None for what is no path here: 'scratch', a hub's name."""
    place = Path(packaged(source, part, revision) if source and part else source or "")
    if not source or not place.exists():
        return None
    beside = place.parent / "tokenizer"
    if part == "encoders/text" and in_pipeline(place):
        return digest([hashes.of(place), hashes.of(beside)])
    return hashes.of(place)


def _of_command(stated: str | None, placed: str | None) -> dict[str, str] | None:
    """Of the files that a command names, by the words that params state."""
    words = zip(shlex.split(stated or ""), shlex.split(placed or ""), strict=True)
    return {word: sha256_file(Path(place)) for word, place in words if Path(place).is_file()} or None


def _train_encoders(study: Study, hashes: Hashes) -> dict:
    config = study.params.train_encoders
    return {
        "text": _of_source(config.text.source, hashes, "encoders/text", config.text.revision),
        "rna": _held(hashes, config.rna.table),
        "rna_init": _of_source(config.rna.init, hashes, "encoders/rna"),
        "genotype": _held(hashes, config.genotype.table),
        "image": _of_source(config.image.source, hashes, "encoders/image"),
    }


def _train_autoencoder(study: Study, hashes: Hashes) -> dict:
    config = study.params.train_autoencoder
    init = _of_source(config.init, hashes, "autoencoder", config.revision)
    return {"init": init, "resume_from": _of_source(config.resume_from, hashes)}


def _train_denoiser(study: Study, hashes: Hashes) -> dict:
    config = study.params.train_denoiser
    init = _of_source(config.init, hashes, "denoiser", config.revision)
    return {"init": init, "resume_from": _of_source(config.resume_from, hashes)}


def _sample_slides(study: Study, hashes: Hashes) -> dict:
    slides = study.params.sample_slides.slides
    return {
        "masks": _held(hashes, *(name for slide in slides for name in (slide.mask, slide.instances))),
        "condition_grids": _held(hashes, *(slide.condition_grid for slide in slides)),
        "holes": _held(hashes, *(slide.image.holes for slide in slides if slide.image)),
    }


def _of_repair(source: str, hashes: Hashes) -> str | None:
    """Of all parts of a model; None where it isn't there."""
    models = Path(packaged(source, "denoiser")).parent
    return hashes.of(models) if (models / "denoiser").is_dir() else None


def slide_places(config: Tile) -> Iterator[tuple[str, str, list[Path]]]:
    """Kind of file, slide and its files, of each row of the manifest. A row with a fault is left to the stage, which says so."""
    slides = config.model_copy(update={"sets": ()})
    entries = check_manifest(slides)[0].slides if config.manifest and Path(config.manifest).is_file() else ()
    for entry in entries:
        yield "slides", entry.slide_id, slide_files(entry.path)
        for kind in _BESIDE_SLIDES:
            if getattr(entry, kind):
                yield kind, entry.slide_id, [getattr(entry, kind)]


def _tile(study: Study, hashes: Hashes) -> dict:
    """The manifest and what its rows name."""
    config = study.params.tile
    of_sets = hashes.of_all(path for each in config.sets for path in named_by(each))
    out = {
        "manifest": hashes.of(Path(config.manifest)) if config.manifest else None,
        "sets": digest(of_sets) if config.sets else None,
        "spots": hashes.of(Path(config.spots)) if config.spots else None,
        "summarise": _of_command(study.stated.tile.summarise, config.summarise),
        "repair": _of_repair(config.repair.model, hashes) if config.repair.is_on else None,
    }
    found: dict[str, dict] = {}
    places = list(slide_places(config))
    for kind, slide, paths in track(places, "looking at the files of slides", len(places)):
        found.setdefault(kind, {})[slide] = [hashes.of(path) for path in paths]
    return out | {kind: digest(found[kind]) if kind in found else None for kind in ("slides", *_BESIDE_SLIDES)}


def _train_filters(study: Study, hashes: Hashes) -> dict:
    params = study.params
    return {
        "features": _of_source(params.train_filters.features, hashes),
        "reviews": hashes.of(study.reviews.parent) if "review" in params.filter.use else None,
    }


def _evaluate(study: Study, hashes: Hashes) -> dict:
    config = study.params.evaluate
    return {"features": _of_source(config.features, hashes), "weights": _held(hashes, config.weights)}


def _uplift(study: Study, _: Hashes) -> dict:
    return {"command": _of_command(study.stated.uplift.command, study.params.uplift.command)}


def _extensions(study: Study, hashes: Hashes) -> dict:
    """Of the files of pieces from outside, by kind and name."""
    stated = study.params.extensions
    return {
        kind: {name: hashes.of(study.root / place.rpartition(":")[0]) for name, place in names.items()}
        for kind, names in stated.items()
    }


_READERS = {
    "tile": _tile,
    "train_encoders": _train_encoders,
    "train_autoencoder": _train_autoencoder,
    "train_denoiser": _train_denoiser,
    "sample_slides": _sample_slides,
    "train_filters": _train_filters,
    "evaluate": _evaluate,
    "uplift": _uplift,
    "extensions": _extensions,
}
