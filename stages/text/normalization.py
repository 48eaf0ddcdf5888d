"""The text as the model reads it, and where its validation and test splits begin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from stages.common.errors import StageError
from stages.common.params import Vectorize

PIECE = 1 << 20  # characters


class Normalization(Protocol):
    """What is done to a text first."""

    @property
    def lowercase(self) -> bool:
        """Whether to lowercase it."""

    @property
    def newlines_to_spaces(self) -> bool:
        """Whether to turn each newline into a space."""


def read_text(path: Path, settings: Normalization) -> str:
    """Read a UTF-8 text with any line ends, and normalize it.

    Args:
        path: the corpus.
        settings: for example the section `vectorize` of `params.yaml`.

    Returns:
        The normalized text.

    Raises:
        StageError: the file is missing or not UTF-8.
    """
    return "".join(read_pieces(path, settings))


def read_pieces(path: Path, settings: Normalization) -> Iterator[str]:
    """Read a text as `read_text` does, in pieces, so that memory does not grow with a text that has spaces.

    A piece ends after a space or a line: the lower case of a Greek sigma depends on whether its word ends.

    Args:
        path: the corpus.
        settings: for example the section `vectorize` of `params.yaml`.

    Yields:
        The pieces of the normalized text, whole words each.

    Raises:
        StageError: the file is missing or not UTF-8.
    """
    rest = ""
    try:
        with open(path, encoding="utf-8-sig") as file:
            while piece := file.read(PIECE):
                piece = rest + piece
                end = max(piece.rfind(" "), piece.rfind("\n")) + 1
                yield normalize(piece[:end], settings)
                rest = piece[end:]
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro download` creates it") from None
    except UnicodeDecodeError:
        raise StageError(f"{path} is not UTF-8 text; `dvc repro download` creates it again") from None
    yield normalize(rest, settings)


def normalize(text: str, settings: Normalization) -> str:
    """Lowercase a text and turn its newlines into spaces, each if `settings` say so."""
    if settings.lowercase:
        text = text.lower()
    return text.replace("\n", " ") if settings.newlines_to_spaces else text


def split_starts(length: int, settings: Vectorize) -> tuple[int, int]:
    """Compute where the validation split and the test split begin; the text ends with them, in this order.

    Args:
        length: characters of the text.
        settings: the section `vectorize` of `params.yaml`.

    Returns:
        Both positions; a split that is not there begins where it ends.
    """
    test = length - round(length * settings.test)
    return test - round(length * settings.validation), test
