"""WebDataset: tar files of key.jpg, key.json, key.cls and key.mask.png."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd

from histoloom.config import TileSet
from histoloom.data.found import Found
from histoloom.data.tile_sets.listing import NONE, PICTURES, Listing, NotListed, name_in_set, places, shown, texts

_WORDS = {"cls": "label", "txt": "caption"}


def list_tars(config: TileSet, files: list[Path], found: Found) -> Listing:
    """The samples of tar files, in their order."""
    rows: list[dict[str, Any]] = []
    stated: list[dict[str, str]] = []
    for number, path in enumerate(files):
        samples, without = _samples(path, config)
        if without:
            found.fault(f"{path.name}: {len(without):,} sample(s) have no picture: {shown(without)}.", "mend the tar.")
        for key, (place, said) in samples.items():
            rows.append({"name": name_in_set(config, path, key), "file": number, **place})
            stated.append(said)
    if not rows:
        raise NotListed("it holds no picture.", "name .tar files of key.jpg, key.png or key.webp.")
    frame = pd.DataFrame(rows, columns=["name", "file", "at", "size", "mask_at", "mask_size"])
    columns = {name: frame[name].fillna(NONE).astype("int64") for name in frame.columns[1:]}
    columns["mask_file"] = columns["file"].where(columns["mask_at"] != NONE, NONE)
    names = dict.fromkeys(name for each in stated for name in each)
    table = pd.DataFrame({n: texts(each.get(n) for each in stated) for n in names}, index=range(len(stated)))
    return Listing(tuple(files), places(frame["name"], **columns), table)


def _samples(path: Path, config: TileSet) -> tuple[dict[str, tuple[dict[str, int], dict[str, str]]], list[str]]:
    """Key to where its picture and mask lie and what is said of it; and the keys without a picture."""
    out: dict[str, tuple[dict[str, int], dict[str, str]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, field = base.partition(".")
                if not stem:
                    continue  # hidden
                place, said = out.setdefault(f"{folder}/{stem}".lstrip("/"), ({}, {}))
                place.update(_place(member, field, config.columns.get("mask", "mask"), place))
                said.update(_said(tar, member, field))
    except (tarfile.TarError, EOFError, OSError) as error:
        problem = f"{path.name} is no plain tar, or breaks off ({error})."
        raise NotListed(problem, "unpack .gz, or copy it again.") from None
    except (ValueError, KeyError) as error:
        raise NotListed(f"{path.name}: {error}.", "mend it.") from None
    return {k: v for k, v in out.items() if "at" in v[0]}, [k for k, v in out.items() if "at" not in v[0]]


def _place(member: tarfile.TarInfo, field: str, mask_name: str, known: dict[str, int]) -> dict[str, int]:
    """Where a sample's picture or mask lies, if the member is either."""
    words, _, ending = field.rpartition(".")
    if f".{ending.lower()}" not in PICTURES or words not in ("", mask_name):
        return {}
    prefix = "mask_" if words == mask_name else ""
    if f"{prefix}at" in known:
        raise ValueError(f"{member.name} is a second {'mask' if prefix else 'picture'} of its sample")
    return {f"{prefix}at": member.offset_data, f"{prefix}size": member.size}


def _said(tar: tarfile.TarFile, member: tarfile.TarInfo, field: str) -> dict[str, str]:
    """What a member says of its sample, if it is of words."""
    if field != "json" and field not in _WORDS:
        return {}
    stream = tar.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) < member.size:
        raise ValueError(f"{member.name} breaks off")
    text = content.decode("utf-8")
    return _of_json(text, member.name) if field == "json" else {_WORDS[field]: text}


def _of_json(text: str, name: str) -> dict[str, str]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no object of names and values")
    return {key: value for key, value in found.items() if not isinstance(value, dict | list)}
