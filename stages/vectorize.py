"""Stage `vectorize`: the corpus as windows and targets, `data/windows.npz`.

The article's second step, without its loops over characters and windows.
"""

import json
from pathlib import Path

from stages.errors import StageError, run_stage
from stages.files import write_bytes_whole, write_whole
from stages.layout import CORPUS_FILE, VECTORIZE_METRICS, WINDOWS_FILE
from stages.params import Vectorize, read_params
from stages.windows import Windows, cut, encode, save_windows


def main() -> None:
    settings = read_params().vectorize
    text = read_text(CORPUS_FILE, settings.lowercase, settings.newlines_to_spaces)
    windows = vectorize(text, settings)
    figures = {
        "characters": len(text),
        "charset": len(windows.charset),
        "windows": len(windows.x),
        "held_out_windows": len(windows.x_val),
    }
    write_whole(WINDOWS_FILE, lambda file: save_windows(file, windows, settings.one_hot))
    write_bytes_whole(VECTORIZE_METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    print(
        f"{figures['characters']:,} characters, {figures['charset']} of them distinct: "
        f"{figures['windows']:,} windows of {settings.maxlen}, "
        f"{figures['held_out_windows']:,} more held out"
    )


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


def vectorize(text: str, settings: Vectorize) -> Windows:
    """Cut a text into windows, its last part (`validation`) apart, no window crossing the border.

    Raises StageError where a part is shorter than one window and its target.
    """
    indices, charset = encode(text)
    border = border_of(len(indices), settings.validation)
    x, y = cut(indices[:border], settings.maxlen, settings.step)
    x_val, y_val = cut(indices[border:], settings.maxlen, settings.step)
    for part, windows, length in (
        ("the text", x, border),
        ("the held-out part", x_val, len(indices) - border),
    ):
        if not len(windows) and (part == "the text" or settings.validation):
            raise StageError(
                f"{part} has {length:,} characters; a window and its target take "
                f"vectorize.maxlen + 1 = {settings.maxlen + 1:,} at least"
            )
    return Windows(x, y, x_val, y_val, charset)


if __name__ == "__main__":
    run_stage(main)
