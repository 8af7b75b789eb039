"""The files that params name, wherever they lie, and what they hold: beside params, what a stage reads of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.config import Params, TrainAutoencoder, TrainDenoiser
from pipeline.data.commit import command_files, digest, sha256_file, write_json
from pipeline.data.manifest import check_manifest
from pipeline.data.slide_files import slide_files
from pipeline.progress import progress

RESOLVED = Path(".histoloom/resolved.yaml")
"""What params.yaml means: every key with its default, and under `files` what the named files hold. The stages of dvc.yaml depend on
its keys, so that a key may be absent from params.yaml and a file may lie anywhere.
"""
_HASHES = Path(".histoloom/hashes.json")
_MISSING, _CIRCLE = "missing", "circle"


class Hashes:
    """sha256 of files, read again only where size, time or inode changed, as DVC does it."""

    def __init__(self, path: Path = _HASHES):
        self.path, self.kept, self.asked = path, {}, {}
        if path.is_file():
            self.kept = json.loads(path.read_text(encoding="utf-8"))

    def of(self, path: Path, within: tuple[Path, ...] = ()) -> str:
        """Of a file, or of a folder's names and files, links followed; 'missing' where there is neither.

        within : the folders that it lies in, so that a link to one of them is followed no further.
        """
        if path.is_dir():
            if (folder := path.resolve()) in within:
                return _CIRCLE
            inside = [child for child in sorted(path.iterdir()) if not child.name.startswith(".")]
            return digest({child.name: self.of(child, (*within, folder)) for child in inside})
        if not path.is_file():
            return _MISSING
        place, found = str(path.resolve()), path.stat()
        seen = [found.st_size, found.st_mtime_ns, found.st_ino]
        kept = self.kept.get(place)
        self.asked[place] = kept if kept and kept[:3] == seen else [*seen, sha256_file(path)]
        return self.asked[place][3]

    def save(self) -> None:
        write_json(self.path, self.asked)


def files_of(params: Params, *sections: str, hashes: Hashes | None = None) -> dict[str, dict[str, str | None]]:
    """Section of params to the keys that name files, to what these hold; None where a key names none."""
    hashes = hashes or Hashes()
    return {section: _READERS[section](params, hashes) for section in sections or _READERS}


def _held(hashes: Hashes, *names: str | None) -> str | None:
    found = [hashes.of(Path(name)) for name in names if name]
    return digest(found) if found else None


def _of_source(source: str | None, hashes: Hashes) -> str | None:
    """Of a model's folder; None for what is no path here: 'scratch', a packaged model, a hub's name."""
    return hashes.of(Path(source)) if source and Path(source).exists() else None


def _encoders(params: Params, hashes: Hashes) -> dict:
    config = params.train_encoders
    return {
        "text": _of_source(config.text.source, hashes),
        "rna": _held(hashes, config.rna.table),
        "rna_init": _of_source(config.rna.init, hashes),
        "genotype": _held(hashes, config.genotype.table),
        "image": _of_source(config.image.source, hashes),
    }


def _begun_from(config: TrainAutoencoder | TrainDenoiser, hashes: Hashes) -> dict:
    return {"init": _of_source(config.init, hashes), "resume_from": _of_source(config.resume_from, hashes)}


def _sample_slides(params: Params, hashes: Hashes) -> dict:
    slides = params.sample_slides.slides
    return {
        "masks": _held(hashes, *(name for slide in slides for name in (slide.mask, slide.instances))),
        "fields": _held(hashes, *(slide.field for slide in slides)),
        "holes": _held(hashes, *(slide.image.holes for slide in slides if slide.image)),
    }


def _tile(params: Params, hashes: Hashes) -> dict:
    """The manifest and what its rows name. A row with a fault is left to the stage, which says so."""
    config = params.tile
    entries = check_manifest(config)[0].slides if Path(config.manifest).is_file() else ()
    out = {
        "manifest": hashes.of(Path(config.manifest)),
        "spots": hashes.of(Path(config.spots)) if config.spots else None,
        "summarise": command_files(config.summarise) or None,
    }
    with progress("looking at slides", len(entries)) as advance:
        found: dict[str, dict] = {}
        for entry in entries:
            named = {"slides": slide_files(entry.path)}
            named |= {k: [getattr(entry, k)] for k in ("annotations", "mask", "instances") if getattr(entry, k)}
            for kind, paths in named.items():
                found.setdefault(kind, {})[entry.slide_id] = [hashes.of(path) for path in paths]
            advance()
    return out | {
        kind: digest(found[kind]) if kind in found else None for kind in ("slides", "annotations", "mask", "instances")
    }


_READERS = {
    "tile": _tile,
    "train_encoders": _encoders,
    "train_autoencoder": lambda params, hashes: _begun_from(params.train_autoencoder, hashes),
    "train_denoiser": lambda params, hashes: _begun_from(params.train_denoiser, hashes),
    "sample_slides": _sample_slides,
    "train_filters": lambda params, hashes: {
        "features": _of_source(params.train_filters.features, hashes),
        "reviews": hashes.of(Path("reviews")) if "review" in params.filter.use else None,
    },
    "evaluate": lambda params, hashes: {
        "features": _of_source(params.evaluate.features, hashes),
        "weights": _held(hashes, params.evaluate.weights),
    },
    "uplift": lambda params, _: {"command": command_files(params.uplift.command) or None},
}


def write_resolved(params: Params) -> None:
    """Write `RESOLVED` for the study in this folder."""
    hashes = Hashes()
    meant = params.model_dump(mode="json") | {"files": files_of(params, hashes=hashes)}
    RESOLVED.parent.mkdir(parents=True, exist_ok=True)
    whole = RESOLVED.with_name(".resolved.new")
    with whole.open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(meant, stream)
    whole.replace(RESOLVED)
    hashes.save()
