"""Stage `download`: the corpus, byte for byte as its source serves it, to `data/corpus.txt`.

The article's first step (`get_file("nietzsche.txt", ...)`), with the bytes known beforehand.
"""

import codecs
import gzip
import hashlib
import json
import sys
import tempfile
import zlib
from pathlib import Path

from stages.corpora import descriptions, is_description, read_corpus
from stages.errors import StageError, run_stage
from stages.files import sha256_of, write_bytes_whole
from stages.layout import CORPUS_FILE, CORPUS_METRICS
from stages.params import Download, read_params
from stages.places import NoAnswer, PlaceError, fetch

GZIP = b"\x1f\x8b"
WARNING = """
{line}
!!  {requested} cannot be reached from here.
!!  TRAINING ON ANOTHER TEXT INSTEAD: {used}
!!  (download.offline_corpus in params.yaml; null makes this an error.)
!!  With a network, or $CORPUS_DIR on a folder that has {requested}.txt:
!!      dvc repro --force download && dvc repro
{line}
"""


def main() -> None:
    settings = read_params().download
    path = Path(settings.corpus)
    if is_description(path):
        with tempfile.TemporaryDirectory() as scratch:
            name, file, place = get_corpus(settings, Path(scratch))
            content = file.read_bytes()
    else:
        name, place = path.name, "a file of your own"
        content = own_text(path, settings)
    figures = {
        "corpus": name,
        "bytes": len(content),
        "characters": count_characters(content, name),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_bytes_whole(CORPUS_FILE, content)
    write_bytes_whole(CORPUS_METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    print(
        f"corpus {name} from {place}: {len(content):,} bytes, "
        f"{figures['characters']:,} characters, sha256 {figures['sha256']}"
    )


def get_corpus(settings: Download, scratch: Path) -> tuple[str, Path, str]:
    """The corpus that a description names, or the offline corpus: its name, a file, the place.

    A corpus's name is that of its description. Raises StageError where there is neither.
    """
    path = Path(settings.corpus)
    corpus, name = read_corpus(path), path.stem
    try:
        return name, *fetch(name, corpus, settings, scratch)
    except NoAnswer as error:
        if settings.offline_corpus is None or Path(settings.offline_corpus) == path:
            raise StageError(
                f"no place of corpus {name} answered ({error}); put {name}.txt into a folder and set "
                "CORPUS_DIR to it, or name another corpus in download.corpus or download.offline_corpus"
            ) from None
    except PlaceError as error:
        raise StageError(f"corpus {name}: {error}") from None
    path = Path(settings.offline_corpus)
    corpus, offline = read_corpus(path), path.stem
    print(WARNING.format(line="!" * 78, requested=name, used=offline), file=sys.stderr, flush=True)
    try:
        return offline, *fetch(offline, corpus, settings, scratch)
    except PlaceError as error:
        raise StageError(
            f"neither corpus {name} nor the offline corpus {offline} could be had: {error}"
        ) from None


def own_text(path: Path, settings: Download) -> bytes:
    """The user's own text in UTF-8, unpacked where it is a gzip file.

    Raises StageError for a file that is missing, larger than `download.max_bytes`, packed or unpacked,
    of another hash than `download.sha256`, cut short, or not in `download.encoding`.
    """
    if not path.is_file():
        raise StageError(
            f"download.corpus: got {str(path)!r}; takes {descriptions() or 'a description'} or the path "
            "of a text file, and there is no such file"
        )
    if settings.sha256 and (got := sha256_of(path)) != settings.sha256:
        raise StageError(f"{path} has sha256 {got}; download.sha256 expects {settings.sha256}")
    with open(path, "rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            content = file.read(settings.max_bytes + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StageError(f"{path} is not a whole gzip file: {error}") from None
    if len(content) > settings.max_bytes:
        raise StageError(
            f"{path} has more than {settings.max_bytes:,} bytes{' unpacked' if packed else ''}; "
            "download.max_bytes takes no more"
        )
    if codecs.lookup(settings.encoding).name == "utf-8":
        return content
    try:
        return content.decode(settings.encoding).encode()
    except UnicodeError as error:
        raise StageError(
            f"{path} is not text in download.encoding {settings.encoding}: {error}"
        ) from None


def count_characters(content: bytes, name: str) -> int:
    """Characters of a UTF-8 text. Raises StageError for an empty text or another encoding."""
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


if __name__ == "__main__":
    run_stage(main)
