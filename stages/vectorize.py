"""Stage `vectorize`: the corpus as windows and targets, `data/windows.npz`.

The article's second step, without its loops over characters and windows.
"""

import json

from stages.errors import StageError, run_stage
from stages.files import write_bytes_whole, write_whole
from stages.layout import CORPUS_FILE, VECTORIZE_METRICS, WINDOWS_FILE
from stages.params import Vectorize, read_params
from stages.text import border_of, read_text
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


def vectorize(text: str, settings: Vectorize) -> Windows:
    """Cut a text into windows, its last part (`validation`) apart, no window crossing the border.

    Raises StageError where a part is shorter than one window and its target.
    """
    indices, charset = encode(text)
    border = border_of(len(indices), settings.validation)
    x, y = cut(indices[:border], settings.maxlen, settings.step)
    x_val, y_val = cut(indices[border:], settings.maxlen, settings.validation_step)
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
