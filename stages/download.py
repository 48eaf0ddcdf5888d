"""Stage `download`: the corpus, byte for byte as its source serves it, to `data/corpus.txt`.

The article's first step (`get_file("nietzsche.txt", ...)`), with the bytes known beforehand.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from stages.errors import StageError, run_stage
from stages.files import sha256_of, write_bytes_whole
from stages.layout import CORPUS_FILE, CORPUS_METRICS
from stages.params import Download, read_params
from stages.places import NoAnswer, PlaceError, fetch

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
    with tempfile.TemporaryDirectory() as scratch:
        name, file, place = get_corpus(settings, Path(scratch))
        content = file.read_bytes()
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
    """The corpus that the parameters name, or the offline corpus: its name, a file, the place.

    Raises StageError where there is neither.
    """
    name = settings.corpus
    if name not in settings.corpora:
        return name, own_file(settings), "a file of your own"
    try:
        return name, *fetch(name, settings.corpora[name], settings, scratch)
    except NoAnswer as error:
        offline = settings.offline_corpus
        if offline is None or offline == name:
            raise StageError(
                f"no place of corpus {name} answered ({error}); put {name}.txt into a folder and set "
                "CORPUS_DIR to it, or name another corpus in download.corpus or download.offline_corpus"
            ) from None
    except PlaceError as error:
        raise StageError(f"corpus {name}: {error}") from None
    print(WARNING.format(line="!" * 78, requested=name, used=offline), file=sys.stderr, flush=True)
    try:
        return offline, *fetch(offline, settings.corpora[offline], settings, scratch)
    except PlaceError as error:
        raise StageError(
            f"neither corpus {name} nor the offline corpus {offline} could be had: {error}"
        ) from None


def own_file(settings: Download) -> Path:
    """The user's own text file, checked against `download.sha256` and `download.max_bytes`."""
    path = Path(settings.corpus)
    if not path.is_file():
        raise StageError(
            f"download.corpus: got {settings.corpus!r}; takes {', '.join(settings.corpora)} or the path "
            "of a text file, and there is no such file"
        )
    size = path.stat().st_size
    if size > settings.max_bytes:
        raise StageError(
            f"{path} has {size:,} bytes; download.max_bytes takes {settings.max_bytes:,} at most"
        )
    if settings.sha256 and (got := sha256_of(path)) != settings.sha256:
        raise StageError(f"{path} has sha256 {got}; download.sha256 expects {settings.sha256}")
    return path


def count_characters(content: bytes, name: str) -> int:
    """Characters of a UTF-8 text. Raises StageError for an empty text or another encoding."""
    try:
        characters = len(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StageError(
            f"corpus {name} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}; "
            "convert it, with `iconv -t utf-8` say"
        ) from None
    if not characters:
        raise StageError(f"corpus {name} is empty; it takes a text longer than one window")
    return characters


if __name__ == "__main__":
    run_stage(main)
