"""Names that become files and folders: what they may be, and the folders that classes are given."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

_LONGEST = 100
_KEPT = "-_. +"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
"""What Windows keeps for its devices, whatever the ending."""
_TABLES = {"metadata.jsonl", "metadata.csv", "metadata.parquet"}
"""What readers of image folders look for beside the classes' folders."""


def _class_name(name: str) -> str:
    if not name.strip() or name != name.strip():
        raise ValueError(f"{name!r} is no class's name: it is empty, or begins or ends with a blank")
    if len(name) > _LONGEST:
        raise ValueError(f"the class's name {name[:20]!r}... has {len(name)} characters, and may have {_LONGEST}")
    if not name.isprintable():
        raise ValueError(f"the class's name {name!r} has a character that can't be printed")
    return name


ClassName = Annotated[str, AfterValidator(_class_name)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=_LONGEST)]
"""What names a file as it is, on any system."""


def alike(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that differ by case or Unicode form alone, or not at all: many file systems hold them for one."""
    seen: dict[str, str] = {}
    for name in names:
        form = unicodedata.normalize("NFKC", name).casefold()
        if form in seen:
            return seen[form], name
        seen[form] = name
    return None


def class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """A folder for each class, which sort in the classes' order: readers of folders number classes so.

    They are the classes' names, where these sort so and can name a folder on any system; else each is numbered, and what can't
    be in a folder's name is an underscore.
    """
    if list(classes) == sorted(classes) and all(_is_folder(name) for name in classes) and not alike(classes):
        return tuple(classes)
    digits = len(str(len(classes) - 1))
    return tuple(f"{number:0{digits}d}_{_cleaned(name)}" for number, name in enumerate(classes))


def _is_folder(name: str) -> bool:
    kept = name.split(".")[0].rstrip().lower() in _RESERVED or name.casefold() in _TABLES
    return name == _cleaned(name) != "" and name[0] not in ". " and not kept


def _cleaned(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    return "".join(c if c.isalnum() or c in _KEPT else "_" for c in composed)[: _LONGEST // 2].rstrip(". ")
