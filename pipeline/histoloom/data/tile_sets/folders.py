"""Pictures that are files: a folder of them, whose folders may be classes, or a CSV of their paths."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from histoloom.config import TileSet
from histoloom.data.csv_table import read_csv_table
from histoloom.data.found import Found
from histoloom.data.slide_files import NoFile, Root
from histoloom.data.tile_sets.listing import NONE, PICTURES, Listing, NotListed, places, shown, texts, their_column

METADATA = "metadata.csv"
_PATHS = ("path", "file_name")
_HINTS = 20


def list_folder(config: TileSet, found: Found) -> Listing:
    """A folder of pictures; the table beside them, where there is one, says more of each."""
    folder = Path(config.path)
    paths, others = _walk(folder, found)
    if not paths:
        remedy = f"name a folder that has pictures: {', '.join(PICTURES)}."
        raise NotListed(f"no picture lies in it or below it ({len(others)} other files).", remedy)
    table = _table_beside(config, folder)
    others = [name for name in others if table is None or folder / name != table]
    if others:
        found.note(f"{len(others):,} file(s) are no pictures and are left out: {shown(others)}.")
    stated, lines = _stated(config, table, paths, found)
    masks, of = _masks(config, paths, found)
    at = places(_names(paths), file=np.arange(len(paths)), at=0, mask_file=of, mask_at=0, line=lines)
    folders = tuple(PurePosixPath(path).parts[:-1] for path in paths)
    return Listing((*(folder / path for path in paths), *masks), at, stated, folders)


def list_csv(config: TileSet, found: Found) -> Listing:
    """A CSV of paths."""
    table, faults = read_csv_table(config.path)
    found.all += faults
    if table.empty:
        raise NotListed("it lists no picture.", "write a header line with the column path, and a row a picture.")
    column = _path_column(config, table)
    root = Path(config.root) if config.root else Path(config.path).parent
    named = texts(table[column])
    for row in [int(line) for line, path in zip(table.index, named) if not path][:1]:
        found.fault(f"{named.count('')} row(s) name no picture.", "fill in the path, or remove the rows.", row, column)
    there = _there(root, named, column, table.index, found)
    table = table[there]
    paths = [PurePosixPath(path).as_posix() for path, kept in zip(named, there) if kept]
    masks, of = _masks(config, paths, found)
    mask = their_column(config, "mask", table.columns)
    if not config.masks and mask is not None and mask in table.columns:
        named = texts(table[mask])
        there = _there(root, named, mask, table.index, found)
        masks, of = [root / name for name, kept in zip(named, there) if kept], np.full(len(named), NONE)
        of[there] = len(paths) + np.arange(len(masks))
    at = places(_names(paths), file=np.arange(len(paths)), at=0, mask_file=of, mask_at=0, line=table.index)
    return Listing((*(root / path for path in paths), *masks), at, table.reset_index(drop=True))


def _names(paths: list[str]) -> list[str]:
    """Paths without their endings."""
    return [path[: -len(ending)] if (ending := PurePosixPath(path).suffix) else path for path in paths]


def _walk(folder: Path, found: Found) -> tuple[list[str], list[str]]:
    """Relative paths of pictures, and of other files, sorted; hidden ones are none. Links that lead out are faults."""
    pictures: list[str] = []
    others: list[str] = []
    linked: list[str] = []
    root = folder.resolve()

    def look(inside: str) -> None:
        with os.scandir(folder / inside) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name = f"{inside}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and (entry.is_dir() or not Path(entry.path).resolve().is_relative_to(root)):
                linked.append(name)
            elif entry.is_dir():
                look(f"{name}/")
            elif entry.is_file():
                (pictures if Path(entry.name).suffix.lower() in PICTURES else others).append(name)
            else:
                linked.append(name)

    look("")
    if linked:
        problem = f"{len(linked):,} link(s) are broken, lead to folders or lead out of it: {shown(linked)}."
        found.fault(problem, "put the files there, or name the folder that they lie in.")
    return pictures, others


def _table_beside(config: TileSet, folder: Path) -> Path | None:
    if config.table:
        return Path(config.table)
    return folder / METADATA if (folder / METADATA).is_file() else None


def _path_column(config: TileSet, table: pd.DataFrame) -> str:
    stated = [config.columns["path"]] if "path" in config.columns else [*_PATHS]
    if column := next((name for name in stated if name in table.columns), None):
        return column
    problem = f"it has no column '{stated[0]}': its columns are {', '.join(table.columns)}."
    raise NotListed(problem, "name the one that has paths: columns: {path: ...}.")


def _stated(config: TileSet, table: Path | None, paths: list[str], found: Found) -> tuple[pd.DataFrame, np.ndarray]:
    """What a table says of each picture, by its path or its file's name, and on which line."""
    if table is None:
        return pd.DataFrame(index=range(len(paths))), np.full(len(paths), NONE)
    rows, faults = read_csv_table(table)
    found.all += faults
    if rows.empty:
        raise NotListed(f"{table} says nothing of its pictures.", "add a row a picture, or take the table away.")
    named = texts(rows[_path_column(config, rows)])
    by_name = {PurePosixPath(path).as_posix(): place for place, path in enumerate(named)}
    if len(by_name) < len(named):
        found.fault(f"{table} has several rows for a picture.", "keep one row for each.", None, "path")
    at = np.array([by_name.get(path, NONE) for path in paths])
    if lost := [path for path, place in zip(paths, at) if place == NONE]:
        problem = f"{len(lost):,} picture(s) have no row in {table}: {shown(lost)}."
        found.fault(problem, "add the rows, or move them away.")
    if extra := sorted(by_name.keys() - {*paths}):
        found.fault(f"{table} names {len(extra):,} picture(s) that aren't there: {shown(extra)}.", "mend the paths.")
    stated = rows.iloc[at].reset_index(drop=True)
    return stated, np.asarray(rows.index)[at]


def _there(root: Path, named: list[str], column: str, lines: pd.Index, found: Found) -> np.ndarray:
    """Which paths name files under the root; the others are faults, the first few with what is there in their place."""
    folders: dict[str, bool] = {}
    home = root.resolve()

    def inside(path: str) -> bool:
        folder = path.rpartition("/")[0]
        if folder not in folders:
            parts = PurePosixPath(folder).parts
            stays = not path.startswith("/") and ".." not in parts
            folders[folder] = stays and (root / folder).resolve().is_relative_to(home)
        if not folders[folder]:
            return False
        try:
            mode = os.lstat(root / path).st_mode
        except OSError:
            return False
        if stat.S_ISLNK(mode):
            return (root / path).is_file() and (root / path).resolve().is_relative_to(home)
        return stat.S_ISREG(mode)

    there = np.array([bool(path) and inside(path) for path in named], bool)
    wrong = [(int(line), path) for line, path, kept in zip(lines, named, there) if path and not kept]
    files = Root(root)
    for line, path in wrong[:_HINTS]:
        try:
            files.find(path)
        except NoFile as error:
            found.fault(error.problem, error.remedy, line, column)
    if len(wrong) > _HINTS:
        problem = f"{len(wrong):,} paths name no file under {root}, such as {shown(path for _, path in wrong)}."
        found.fault(problem, "mend the paths, or state root.", None, column)
    return there


def _masks(config: TileSet, paths: list[str], found: Found) -> tuple[list[Path], np.ndarray]:
    """Masks of a folder with the pictures' relative names, whatever their endings, and which is whose."""
    none = np.full(len(paths), NONE)
    if not config.masks:
        return [], none
    folder = Path(config.masks)
    if not folder.is_dir():
        found.fault(f"masks names '{folder}', which is no folder.", "mend it.")
        return [], none
    masks, _ = _walk(folder, found)
    by_name: dict[str, int] = {}
    for place, name in enumerate(_names(masks)):
        if name in by_name:
            found.fault(f"{folder} has several masks called '{name}'.", "keep one.")
        by_name[name] = place
    of = np.array([by_name.get(name, NONE) for name in _names(paths)])
    if unused := by_name.keys() - {*_names(paths)}:
        found.note(f"{len(unused):,} mask(s) of {folder} have no picture: {shown(sorted(unused))}.")
    return [folder / mask for mask in masks], np.where(of == NONE, NONE, of + len(paths))
