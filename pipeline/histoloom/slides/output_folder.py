"""The folder that a command writes a slide to: what is somebody else's stays there, and a run that was broken off is gone on with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError

PARTS, _FINISHING = ".parts", "finishing"
_KEY = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class OutputFolder:
    """A folder and what is written there.

    files : names of what is written. stated : the file that vouches for them, written last. other : what vouches for files of another
        kind, which may be of another slide.
    """

    path: Path
    files: tuple[str, ...]
    stated: str
    other: str

    def begin(self, slide: Path, key: str) -> Path:
        """The folder of a run's parts, those of an earlier run with the same key among them; what other runs left is taken away.

        Parameters
        ----------
        key : hexadecimal, of all that decides what is written.

        Raises
        ------
        HistoloomError
            when what was not made here would be overwritten, the slide among it, or the folder can't be written to.
        """
        self._check(slide)
        parts = self.path / PARTS / key[:16]
        try:
            parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HistoloomError(f"Nothing can be written to {self.path}: {error}. Name another folder.") from error
        for other in self._left():
            if other != parts:
                shutil.rmtree(other)
        return parts

    def publish(self, parts: Path, made: Path, statement: Mapping[str, Any]) -> None:
        """Move what was made to its place, and state it; a statement never stands beside another's files."""
        (parts / _FINISHING).touch()
        (self.path / self.stated).unlink(missing_ok=True)
        for name in self.files:
            if (made / name).is_file():
                (made / name).replace(self.path / name)
            elif not (parts / f"{name}.{_FINISHING}").exists():
                (self.path / name).unlink(missing_ok=True)
            (parts / f"{name}.{_FINISHING}").touch()
        write_json(self.path / self.stated, dict(statement))
        for left in self._left():
            shutil.rmtree(left)
        if not any((self.path / PARTS).iterdir()):
            (self.path / PARTS).rmdir()

    def _left(self) -> list[Path]:
        return [path for path in (self.path / PARTS).glob("*") if path.is_dir() and _KEY.fullmatch(path.name)]

    def _check(self, slide: Path) -> None:
        taken = [name for name in self.files if (self.path / name).exists()]
        again = "Name another folder."
        if any((self.path / name).samefile(slide) for name in taken):
            raise HistoloomError(f"{slide} would be overwritten. {again}")
        if folders := [name for name in taken if (self.path / name).is_dir()]:
            raise HistoloomError(f"{self.path / folders[0]} is a folder, in the place of a file. {again}")
        finishing = any((left / _FINISHING).exists() for left in self._left())
        if taken and not finishing and not (self.path / self.stated).is_file():
            raise HistoloomError(
                f"{self.path} holds {taken[0]}, which was not made here, and would be overwritten. {again}"
            )
        if (self.path / self.other).exists():
            raise HistoloomError(f"{self.path} holds {self.other}, which states another prediction. {again}")
