"""Codes that stand for patients and slides outside: keyed hashes, so that nobody without the salt can go back."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from histoloom.errors import HistoloomError

SALT_VARIABLE = "HISTOLOOM_SALT"
_LEAST_CHARACTERS = 16


def read_salt(path: Path) -> bytes:
    """The study's salt: from the environment, else from its file, which is made (mode 600) on first use.

    The file stays out of git and of every output: keep it, since new codes would not match the old ones.
    """
    if stated := os.environ.get(SALT_VARIABLE):
        if len(stated) < _LEAST_CHARACTERS:
            raise HistoloomError(f"{SALT_VARIABLE} is shorter than {_LEAST_CHARACTERS} characters: state a longer one.")
        return stated.encode()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
    try:
        salt = path.read_text(encoding="utf-8").strip().encode()
    except (OSError, UnicodeDecodeError) as error:
        raise HistoloomError(f"The salt in {path} can't be read ({error}). Put the file back as it was.") from None
    if len(salt) < _LEAST_CHARACTERS:
        raise HistoloomError(
            f"The salt in {path} is shorter than {_LEAST_CHARACTERS} characters. Put it back, or delete the file to "
            "make a new one (all codes change)."
        )
    return salt


def code(kind: str, name: str, salt: bytes) -> str:
    """A code of twelve hexadecimal digits, such as 'p-3f2a...': the same for the same name and salt."""
    return f"{kind}-{hmac.new(salt, f'{kind}/{name}'.encode(), hashlib.sha256).hexdigest()[:12]}"


def known_salt(path: Path) -> bytes | None:
    """The study's salt, where it has one: to recognise codes, none need be made."""
    return read_salt(path) if os.environ.get(SALT_VARIABLE) or path.exists() else None
