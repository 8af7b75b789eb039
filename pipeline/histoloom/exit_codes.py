"""What a command's exit code says, and how it ends."""

from __future__ import annotations

import errno
import sys
import traceback
from types import TracebackType

import click

from histoloom.errors import HistoloomError
from histoloom.progress import console

FAULT, USAGE, UNFORESEEN, INTERRUPTED = 1, 2, 70, 130
EXIT_CODES = {
    0: "Done. `validate` found no fault, `doctor` found nothing missing.",
    FAULT: "Something that you can mend: a fault of params, manifests or slides, a file that is missing or that you may not read, a full disk, a package that is not installed. "
    "The message says how.",
    USAGE: "The command line can't be read: an unknown command or option, or a value that is missing or of the wrong kind.",
    UNFORESEEN: "An error that was not foreseen. The traceback is printed: please report it.",
    INTERRUPTED: "Stopped by Ctrl-C. Finished parts are kept.",
}
_FULL, _NOT_ALLOWED = (errno.ENOSPC, errno.EDQUOT), (errno.EACCES, errno.EPERM, errno.EROFS)


class ends_in_words:
    """Turn what is raised inside into words and an exit code.

    go_on : how to go on after Ctrl-C.
    """

    def __init__(self, go_on: str = "Run the same command again to go on from there."):
        self.go_on = go_on

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or isinstance(
            error, (SystemExit, click.ClickException, click.exceptions.Exit, BrokenPipeError)
        ):
            return
        if (words := _fault(error)) is not None:
            console.print(f"error: {words}", style=None, markup=False)
            sys.exit(FAULT)
        if isinstance(error, (KeyboardInterrupt, click.Abort)):
            console.print(f"Stopped. What was committed is kept. {self.go_on}")
            sys.exit(INTERRUPTED)
        traceback.print_exception(error)
        console.print("This error was not foreseen. Please report it, with the lines above.")
        sys.exit(UNFORESEEN)


def _fault(error: BaseException) -> str | None:
    """The words of an error that the user can mend; None of any other."""
    if isinstance(error, HistoloomError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"The disk is full ({error.filename or error.strerror}). Make room and run the same command again: what was committed is kept."
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED:
        return f"{error.filename or 'A file'} can't be used: {error.strerror}. Change its permissions, or name another place."
    if isinstance(error, ModuleNotFoundError) and (name := (error.name or "").partition(".")[0]) not in (
        "",
        "histoloom",
    ):
        return f"This command needs the package '{name}', which is missing. Install all: pip install histoloom"
    return None
