"""Python imports this by itself where this folder is on PYTHONPATH: it writes down what each stage opens to read.

HISTOLOOM_OPENED names the file that it is written to, a line 'STAGE<tab>PATH' each. Left out is what is opened to
take a hash, to sync it or to delete it.
"""

from __future__ import annotations

import os
import sys

_NO_READING = {"data/commit.py": {"hash_tree", "sha256_file", "sync"}, "/shutil.py": {"rmtree"}}
"""End of a file's name to its functions that open things and use nothing of what they hold."""


def _watch(stage: str, log: str) -> None:
    out, seen = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), set()

    def note(path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
            if place not in seen and not _in_passing():
                seen.add(place)
                os.write(out, f"{stage}\t{place}\n".encode())

    def heard(event: str, arguments: tuple) -> None:
        if event == "open" and arguments[2] & os.O_ACCMODE != os.O_WRONLY:
            note(arguments[0])

    sys.addaudithook(heard)
    _watch_those_that_python_does_not_hear(note)


def _in_passing() -> bool:
    frame = sys._getframe()
    while frame := frame.f_back:
        code = frame.f_code
        if any(code.co_filename.endswith(file) and code.co_name in names for file, names in _NO_READING.items()):
            return True
    return False


def _watch_those_that_python_does_not_hear(note) -> None:
    """Libraries that open files in C or Rust."""
    import openslide
    import safetensors

    opened, slide_opened = safetensors.safe_open, openslide.OpenSlide.__init__

    def safe_open(filename, *args, **kwargs):
        note(filename)
        return opened(filename, *args, **kwargs)

    def init(self, filename):
        note(filename)
        slide_opened(self, filename)

    safetensors.safe_open, openslide.OpenSlide.__init__ = safe_open, init


if "HISTOLOOM_OPENED" in os.environ and sys.argv[1:2] == ["run"]:
    _watch(sys.argv[2], os.environ["HISTOLOOM_OPENED"])
