"""The text as the article reads it, and where its held-out part begins."""

from pathlib import Path

from stages.errors import StageError


def read_text(path: Path, lowercase: bool, newlines_to_spaces: bool) -> str:
    """The text as the article reads it: UTF-8, any line end as a newline, lowercased, on one line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro download` gets it") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    return as_the_article_reads(text, lowercase, newlines_to_spaces)


def as_the_article_reads(text: str, lowercase: bool, newlines_to_spaces: bool) -> str:
    """A text lowercased and on one line, each if asked for."""
    if lowercase:
        text = text.lower()
    return text.replace("\n", " ") if newlines_to_spaces else text


def border_of(length: int, validation: float) -> int:
    """Where the held-out part of a text begins."""
    return length - round(length * validation)
