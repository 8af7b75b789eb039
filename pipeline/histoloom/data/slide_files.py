"""Files that a manifest names under a root: found, or refused with what is there in their place; and all files of a slide."""

from __future__ import annotations

import glob
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

from histoloom.data.dicom import series_in, series_of
from histoloom.data.remote import CannotFetch, fetch, is_address, join, yet_to_copy
from histoloom.progress import console


def slide_files(path: Path) -> list[Path]:
    """All files and folders that hold a slide: MIRAX keeps pixels in a folder of its name, Hamamatsu's VMS and VMU in files whose
    names begin with its own, DICOM in the files of its series."""
    kind, folder = path.suffix.lower(), path.parent
    if kind == ".mrxs":
        beside = path.with_suffix("")
        return [path, beside] if beside.is_dir() else [path]
    if kind in (".vms", ".vmu"):
        return sorted(p for p in folder.glob(f"{glob.escape(path.stem)}*") if p.is_file())
    return series_of(path)


def bytes_of_slide(path: Path) -> int:
    """About how large it is, without a look at every file of its folder: of a DICOM series its first file. 0 of one that can't be read."""
    try:
        if path.suffix.lower() not in (".mrxs", ".vms", ".vmu"):
            return path.stat().st_size
        inside = [file for found in slide_files(path) for file in (found.rglob("*") if found.is_dir() else [found])]
        return sum(file.stat().st_size for file in inside)
    except OSError:
        return 0


class NoFile(Exception):
    """A value that names no file under its root.

    `hinted` is False where nothing is known but that nothing is there.
    """

    def __init__(self, problem: str, remedy: str, *, hinted: bool = True):
        self.problem, self.remedy, self.hinted = problem, remedy, hinted
        super().__init__(problem)


class Root:
    """A folder whose files a column names, or the address of one.

    cache : the folder that files at addresses are copied to; None refuses them.
    """

    def __init__(self, folder: Path | str, cache: Path | None = None):
        self.address = folder if isinstance(folder, str) and is_address(folder) else None
        self.folder, self.cache = Path(folder), cache
        self._listed: dict[str, dict[str, list[str]]] = {}

    def prepare(self, values: Iterable[str]) -> None:
        """Ask servers of all files at once, and say how much is to be copied."""
        addresses = [address for address in map(self._address, values) if address]
        if self.cache is not None and addresses:
            count, size = yet_to_copy(addresses, self.cache)
            if count:
                console.print(f"copying {count:,} file(s) of {size / 1e9:.3g} GB to {self.cache}", markup=False)

    def _address(self, value: str) -> str | None:
        if is_address(value):
            return value
        return None if self.address is None else join(self.address, value)

    def find(self, value: str) -> Path:
        """The file that a value names.

        Raises
        ------
        NoFile
            when there is none, or the value leads out of the root, by a link too.
        """
        if address := self._address(value):
            return self._fetched(value, address)
        path = self.folder / value
        try:
            if path.is_file() and self._holds(path):
                return path
            raise self._refusal(value, path)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = getattr(error, "strerror", None) or error
            raise NoFile(f"'{value}' can't be reached ({reason}).", "mend the path, the link or its rights.") from None

    def _fetched(self, value: str, address: str) -> Path:
        if self.cache is None:
            raise NoFile(f"'{value}' is an address.", f"put the file under {self.folder} and name its path there.")
        if urlsplit(address).password is not None:
            remedy = "take it out: AWS_ACCESS_KEY_ID and the like, or a file of your home, hold passwords."
            raise NoFile("the address holds a password, which a manifest shows to everybody.", remedy)
        if "::" in address or ".." in Path(value).parts:
            raise NoFile(f"'{value}' leads elsewhere than it says.", "name the file by its own address.")
        try:
            return fetch(address, self.cache)
        except CannotFetch as error:
            raise NoFile(error.problem, error.remedy, hinted=not error.gone) from None

    def _holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.folder.resolve())

    def _refusal(self, value: str, path: Path) -> NoFile:
        elsewhere = f"put the file under {self.folder}, or name another root in params.yaml."
        if path.is_symlink() and not path.exists():
            problem = f"'{value}' is a link to '{path.readlink()}', which is not there."
            return NoFile(problem, "mend the link, or mount its disk.")
        if PureWindowsPath(value).drive and not path.exists():
            remedy = f"state it from {self.folder} on, with '/' between folders."
            return NoFile(f"'{value}' is a path of Windows.", remedy)
        if not self._holds(path):
            by_link = not Path(value).is_absolute() and ".." not in Path(value).parts
            how = "is a link, or lies behind one, that leads" if by_link else "leads"
            return NoFile(f"'{value}' {how} out of {self.folder}.", elsewhere)
        if path.is_dir():
            return self._is_folder(value, path)
        if path.exists():
            return NoFile(f"'{value}' is no regular file.", "name a file.")
        return self._missing(value)

    def _is_folder(self, value: str, path: Path) -> NoFile:
        first = [files[0].relative_to(self.folder).as_posix() for files in series_in(path).values()]
        if len(first) > 1:
            problem = f"'{value}' is a folder of {len(first):,} DICOM series, and each is a slide."
            return NoFile(
                problem, f"give each a row that names one of its files, such as '{first[0]}' and '{first[1]}'."
            )
        if first:
            return NoFile(
                f"'{value}' is a folder of one DICOM series.", f"name one of its files, such as '{first[0]}'."
            )
        return NoFile(f"'{value}' is a folder.", "name the file in it (of MIRAX, the .mrxs file beside it).")

    def _missing(self, value: str) -> NoFile:
        missing = f"there is no file '{value}' under {self.folder}"
        turned = value.replace("\\", "/")
        near = self._spelt_otherwise(turned)
        if near and turned != value:
            return NoFile(f"{missing}, and there is '{near}'.", "write '/' between folders.")
        if near:
            problem = f"{missing}, and there is '{near}', which differs by case or Unicode form alone."
            return NoFile(problem, "write the path as the file is named.")
        parts = Path(turned).parts
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        if shorter := next((end for end in ends if (self.folder / end).is_file()), None):
            return NoFile(f"{missing}, and there is '{shorter}'.", f"state paths from {self.folder} on.")
        return NoFile(f"{missing}.", "mend the path or put the file there.", hinted=False)

    def _spelt_otherwise(self, value: str) -> str | None:
        """The one file whose path is the value's in another case or Unicode form."""
        found: list[str] = []
        for part in Path(value).parts:
            names = self._names("/".join(found)).get(_folded(part), [])
            names = [part] if part in names else names
            if len(names) != 1:
                return None
            found += names
        return "/".join(found) if self.folder.joinpath(*found).is_file() else None

    def _names(self, inside: str) -> dict[str, list[str]]:
        """What a folder holds, by its names' common form."""
        if inside not in self._listed:
            folder = self.folder / inside
            names: dict[str, list[str]] = {}
            for path in folder.iterdir() if folder.is_dir() else ():
                names.setdefault(_folded(path.name), []).append(path.name)
            self._listed[inside] = names
        return self._listed[inside]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
