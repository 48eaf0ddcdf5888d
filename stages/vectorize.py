"""Stage `vectorize`: the corpus as windows and targets, `data/windows.npz`.

The article's second step, without its loops over characters and windows.
"""

from stages.common.errors import run_stage
from stages.common.files import write_atomically, write_json_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE, WINDOWS_FILE, WINDOWS_SUMMARY
from stages.text.normalization import read_text
from stages.text.windows import make_windows
from stages.text.windows_file import save_windows


def main() -> None:
    """Cut the corpus into windows; write them and how many there are."""
    settings = read_params().vectorize
    text = read_text(CORPUS_FILE, settings)
    windows = make_windows(text, settings)
    summary = {
        "characters": len(text),
        "vocab_size": len(windows.vocabulary),
        "windows": len(windows.x),
        "validation_windows": len(windows.x_val),
    }
    write_atomically(WINDOWS_FILE, lambda file: save_windows(file, windows, settings.one_hot))
    write_json_atomically(WINDOWS_SUMMARY, summary)
    print(
        f"{summary['characters']:,} characters, {summary['vocab_size']} of them distinct: "
        f"{summary['windows']:,} windows of {settings.maxlen}, "
        f"{summary['validation_windows']:,} more in the validation split"
    )


if __name__ == "__main__":
    run_stage(main)
