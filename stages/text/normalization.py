"""The text as the model reads it, and where its validation split begins."""

from pathlib import Path
from typing import Protocol

from stages.common.errors import StageError
from stages.common.params import Vectorize


def read_text(path: Path, settings: Vectorize) -> str:
    """Read a UTF-8 text with any line ends, and normalize it.

    Args:
        path: the corpus.
        settings: the section `vectorize` of `params.yaml`.

    Returns:
        The normalized text.

    Raises:
        StageError: the file is missing or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro download` creates it") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    return normalize(text, settings)


class Normalization(Protocol):
    """What is done to a text first."""

    @property
    def lowercase(self) -> bool:
        """Whether to lowercase it."""

    @property
    def newlines_to_spaces(self) -> bool:
        """Whether to turn each newline into a space."""


def normalize(text: str, settings: Normalization) -> str:
    """Lowercase a text and turn its newlines into spaces, each if `settings` say so."""
    if settings.lowercase:
        text = text.lower()
    return text.replace("\n", " ") if settings.newlines_to_spaces else text


def validation_start(length: int, validation: float) -> int:
    """Compute the position where the validation split begins.

    Args:
        length: characters of the text.
        validation: the share of the text, at its end, that is the validation split.

    Returns:
        The position; `length` without a validation split.
    """
    return length - round(length * validation)
