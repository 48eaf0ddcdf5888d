"""Atomic writes: a file is written beside its target and then renamed over it."""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from stages.common.errors import StageError

TEMPORARY_SUFFIX = ".part"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], mode: int | None = None) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part of it.

    The previous file survives any failure, a full disk and a power cut included (hence the fsync). What a
    killed process left of an earlier write of this file is removed.

    Args:
        path: the target. Its folder is created if necessary.
        write: a function that fills the binary file it gets.
        mode: the file's permissions; None for those that the process's umask leaves.

    Raises:
        OSError: with the name of the target.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):
        if not _is_running(leftover.name.split(".")[-2]):
            leftover.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            part.chmod(mode)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # in a read-only folder the error above is the one to see
            part.unlink()


def _is_running(process: str) -> bool:
    """Tell whether there is a process of this number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def write_bytes_atomically(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write `content` with `write_atomically`."""
    write_atomically(path, lambda file: file.write(content), mode)


def write_json_atomically(path: Path, tree: Any) -> None:
    """Write a tree as indented JSON with `write_atomically`."""
    write_bytes_atomically(path, (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode())


def read_output(path: Path, stage: str) -> str:
    """Read a text file that an earlier stage wrote.

    Args:
        path: the file, UTF-8.
        stage: the stage that writes it, for the error message.

    Returns:
        The file's text.

    Raises:
        StageError: the file is missing.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro {stage}` creates it") from None


def require_as_checked(record: Path, file: Path, sha256: str) -> None:
    """Check that a file is the one that the stage `check` saw, on which the next stage depends.

    Args:
        record: what that stage wrote, the SHA-256 of files by their paths. Without it nothing is compared:
            then a stage runs by itself, and not under DVC.
        file: the file.
        sha256: of its bytes, as they were read.

    Raises:
        StageError: the file is another one.
    """
    if record.exists() and json.loads(record.read_text(encoding="utf-8")).get(str(file)) != sha256:
        raise StageError(f"{file} is not what the stage check read; run `dvc repro`")


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
