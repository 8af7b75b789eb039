"""A manifest drafted from a folder of slides: what is a slide, what is left out and why, and an id for each."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from histoloom.data.dicom import DicomHeader, is_dicom, read_dicom_header
from histoloom.data.ids import canonical, folder_ids

_SCANNED = {".svs", ".ndpi", ".mrxs", ".tif", ".tiff", ".scn", ".bif", ".svslide", ".vms", ".vmu"}
_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_SYSTEM_FOLDERS = {
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "system volume information",
    "lost+found",
}  # fmt: skip
_EXPORT = re.compile(
    r"(.*?)[-_. (]*(label|macro|thumb|thumbnail|overview|overlay|preview|mask|instance)s?\)?", re.IGNORECASE
)


@dataclass
class Draft:
    """Slides as id and path under the folder, and what was left out: reason to paths."""

    slides: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def words(self) -> list[str]:
        """A line for each reason: how many, why, and one of them."""
        return [f"{len(paths):,} {reason}, such as '{paths[0]}'" for reason, paths in self.left_out.items()]


def draft_slides(root: Path) -> Draft:
    """Look for slides in a folder and all folders in it; links that lead out of it are not followed."""
    draft, files = Draft(), []
    for folder, names, members in os.walk(root, onerror=lambda error: _unreadable(error, root, draft)):
        inside = Path(folder).relative_to(root)
        reasons = {name: _why_not_folder(Path(folder, name), members) for name in sorted(names)}
        for name, reason in reasons.items():
            if reason:
                draft.left_out[reason].append((inside / name).as_posix() + "/")
        names[:] = [name for name, reason in reasons.items() if not reason]
        files += [inside / name for name in sorted(members)]
    kept, of_folders = _each_series([path for path in files if not _left_out(path, root, draft)], root, draft)
    kept = _each_once(_without_exports(kept, root, draft), root, draft)
    own = [path.parent if path in of_folders else path.with_suffix("") for path in kept]
    seen = Counter(canonical(path.name) for path in own)
    named = ["_".join(path.parts) if seen[canonical(path.name)] > 1 else path.name for path in own]
    draft.slides = [(name, path.as_posix()) for name, path in zip(folder_ids(named), kept)]
    return draft


def _unreadable(error: OSError, root: Path, draft: Draft) -> None:
    draft.left_out["folder(s) that can't be read"].append(f"{Path(error.filename).relative_to(root).as_posix()}/")


def _why_not_folder(path: Path, beside: list[str]) -> str | None:
    if path.name.startswith("."):
        return "hidden folder(s)"
    if path.name.casefold() in _SYSTEM_FOLDERS:
        return "folder(s) of the file system"
    if any(name.casefold() == f"{path.name}.mrxs".casefold() for name in beside):
        return "folder(s) of a MIRAX slide's pixels"
    if path.is_symlink():
        return "link(s) to folders"
    return None


def _left_out(path: Path, root: Path, draft: Draft) -> bool:
    reason = _why_not_file(root / path, root)
    if reason is None and (not _is_text(path) or path.as_posix() != path.as_posix().strip()):
        reason = "file(s) whose path can't be written to a table"
    if reason:
        draft.left_out[reason].append(path.as_posix().encode(errors="replace").decode())
    return reason is not None


def _why_not_file(path: Path, root: Path) -> str | None:
    suffix = path.suffix.lower()
    if path.name.startswith((".", "~$")):
        return "hidden file(s)"
    if suffix not in _SCANNED | _PICTURES and suffix != ".dcm" and not is_dicom(path):
        return "file(s) that are no slide by their suffix"
    if path.is_symlink() and not path.exists():
        return "broken link(s)"
    if not path.resolve().is_relative_to(root.resolve()):
        return "link(s) that lead out of the folder: name the folder that holds their files"
    if not path.is_file():
        return "name(s) of slides that are no regular file"
    return "empty file(s)" if path.stat().st_size == 0 else None


def _is_text(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _each_series(files: list[Path], root: Path, draft: Draft) -> tuple[list[Path], set[Path]]:
    """Of each DICOM series one file, that of the finest level, and all other files.

    Also those whose folder holds no other series, so that it names the slide: files of a series often have UIDs for names.
    """
    kept, series = [], defaultdict[str, dict[Path, DicomHeader]](dict)
    for path in files:
        header = read_dicom_header(root / path)
        if header is not None:
            series[header.series][path] = header
        elif path.suffix.lower() == ".dcm":
            draft.left_out["DICOM file(s) whose header can't be read"].append(path.as_posix())
        else:
            kept.append(path)
    finest = []
    for members in series.values():
        shown = {path: header.columns for path, header in members.items() if header.whole_slide}
        if not shown:
            reason = "DICOM file(s) of series that show no whole slide"
            draft.left_out[reason] += [path.as_posix() for path in members]
            continue
        finest.append(min(shown, key=lambda path: (-shown[path], path.as_posix())))
        copies = [path.as_posix() for path in members if path.parent != finest[-1].parent]
        if copies:
            draft.left_out["DICOM file(s) in another folder than the rest of their series"] += copies
    folders = Counter(path.parent for path in finest)
    alone = {path for path in finest if folders[path.parent] == 1 and path.parent != Path()}
    return sorted([*kept, *finest], key=lambda path: path.as_posix()), alone


def _without_exports(files: list[Path], root: Path, draft: Draft) -> list[Path]:
    """Leave out pictures that belong to a slide, and so show its tissue, or its label, again."""
    beside: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        beside[path.parent].append(path)
    folders = {folder: _Beside.of(members, root) for folder, members in beside.items()}
    stems = Counter(path.stem for path in files)
    kept = []
    for path in files:
        reason = folders[path.parent].owner_of(path)
        if reason is None and _is_export(path.parent.name) and stems[path.stem] > 1:
            reason = "picture(s) in a folder of masks, labels or thumbnails"
        if reason:
            draft.left_out[reason].append(path.as_posix())
        else:
            kept.append(path)
    return kept


def _is_export(name: str) -> bool:
    """Whether a name says thumbnail, label or the like, and nothing more."""
    found = _EXPORT.fullmatch(name)
    return found is not None and not found[1]


@dataclass
class _Beside:
    """What of one folder a picture may belong to."""

    names: set[str]
    scanned: set[str]
    listed: str

    @classmethod
    def of(cls, files: list[Path], root: Path) -> _Beside:
        owners = [path for path in files if not _is_export(path.stem)]
        indices = [root / path for path in files if path.suffix.lower() in (".vms", ".vmu")]
        return cls(
            {name for path in owners for name in (path.name, path.stem)},
            {path.stem for path in files if path.suffix.lower() in _SCANNED},
            "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in indices),
        )

    def owner_of(self, path: Path) -> str | None:
        """Why a file is left out for a slide beside it."""
        if path.suffix.lower() in _PICTURES and path.name in self.listed:
            return "picture(s) that a Hamamatsu slide is made of"
        if path.suffix.lower() in _PICTURES and path.stem in self.scanned:
            return "picture(s) of the name of a slide beside them"
        export = _EXPORT.fullmatch(path.stem)
        if export and (export[1] in self.names or (not export[1] and self.names)):
            return "label, thumbnail or mask picture(s) beside a slide"
        return None


def _each_once(files: list[Path], root: Path, draft: Draft) -> list[Path]:
    """Leave out links to files that are drafted themselves."""
    first: dict[Path, Path] = {}
    for path in sorted(files, key=lambda path: ((root / path).is_symlink(), path.as_posix())):
        if first.setdefault((root / path).resolve(), path) != path:
            draft.left_out["link(s) to a slide that is drafted"].append(path.as_posix())
    return sorted(first.values(), key=lambda path: path.as_posix())
