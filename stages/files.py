"""Files appear whole: written beside the target, then renamed over it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".part"


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a binary file beside `path`, then rename it to `path`.

    A reader sees the old file or the new one, never half; whatever goes wrong, also a full disk or
    a power cut (hence the fsync), the old one is still there. Raises OSError with the target's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes_whole(path: Path, content: bytes) -> None:
    """`write_whole` for content that is at hand."""
    write_whole(path, lambda file: file.write(content))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
