"""A text file of the user's own: unpacked, decoded, checked."""

import codecs
import gzip
import hashlib
import io
import zlib
from pathlib import Path

from stages.common.errors import StageError
from stages.common.files import require_as_checked
from stages.common.params import CORPORA, Download
from stages.common.paths import CORPUS_FILES
from stages.text.corpora import listing

GZIP = b"\x1f\x8b"


def read_own_text(path: Path, settings: Download) -> bytes:
    """Read the user's own text, unpacked where it is a gzip file.

    Args:
        path: the file.
        settings: encoding, hash and size limit.

    Returns:
        The text in UTF-8.

    Raises:
        StageError: the file is missing, larger than `download.max_bytes` (packed or unpacked), not what the
            stage `check` read, has another hash than `download.sha256`, is cut short, or is not text in
            `download.encoding`.
    """
    require_file(path)
    with open(path, "rb") as file:
        content = _up_to_limit(file, path, settings)
    got = hashlib.sha256(content).hexdigest()
    require_as_checked(CORPUS_FILES, path, got)
    if settings.sha256 and got != settings.sha256:
        raise StageError(f"{path} has sha256 {got}; download.sha256 expects {settings.sha256}")
    if content.startswith(GZIP):
        try:
            with gzip.open(io.BytesIO(content)) as unpacked:
                content = _up_to_limit(unpacked, path, settings, " unpacked")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise StageError(f"{path} is not a complete gzip file: {error}") from None
    if codecs.lookup(settings.encoding).name == "utf-8":
        return content
    try:
        return content.decode(settings.encoding).encode()
    except UnicodeError as error:
        raise StageError(f"{path} is not text in download.encoding {settings.encoding}: {error}") from None


def require_file(path: Path) -> None:
    """Check that the user's own text is there.

    Args:
        path: the file that `download.corpus` names.

    Raises:
        StageError: there is no such file.
    """
    if not path.is_file():
        why = "this is a folder" if path.is_dir() else "there is no such file"
        raise StageError(
            f"download.corpus: got {str(path)!r}, and {why}; takes a text or a description in {CORPORA}/; "
            f"{listing()}"
        )


def _up_to_limit(file: io.BufferedIOBase, path: Path, settings: Download, state: str = "") -> bytes:
    """Read a file that is no larger than `download.max_bytes`."""
    content = file.read(settings.max_bytes + 1)
    if len(content) > settings.max_bytes:
        raise StageError(
            f"{path} has more than {settings.max_bytes:,} bytes{state}; download.max_bytes takes no more"
        )
    return content


def count_characters(content: bytes, name: str) -> int:
    """Count the characters of a UTF-8 text.

    Args:
        content: the text's bytes.
        name: the corpus's name, for the error message.

    Returns:
        The number of characters.

    Raises:
        StageError: the text is empty or not UTF-8.
    """
    try:
        characters = len(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StageError(
            f"corpus {name} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}; "
            "name its encoding in download.encoding (latin-1, say)"
        ) from None
    if not characters:
        raise StageError(f"corpus {name} is empty; it takes a text longer than one window")
    return characters
