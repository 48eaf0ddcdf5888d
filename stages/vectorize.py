"""Stage `vectorize`: the corpus as windows and targets, `data/windows.npz`.

The article's second step, without its loops over characters and windows.
"""

import os
import shutil

from stages.common.errors import StageError, run_stage
from stages.common.files import write_atomically, write_json_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE, WINDOWS_FILE, WINDOWS_SUMMARY
from stages.text.normalization import read_text
from stages.text.windows import Windows, make_windows
from stages.text.windows_file import save_windows


def main() -> None:
    """Cut the corpus into windows; write them and how many there are."""
    settings = read_params().vectorize
    text = read_text(CORPUS_FILE, settings)
    windows = make_windows(text, settings)
    require_room(windows, settings.one_hot)
    summary = {
        "characters": len(text),
        "vocab_size": len(windows.vocabulary),
        "windows": len(windows.x),
        "validation_windows": len(windows.x_val),
        "test_windows": len(windows.x_test),
    }
    write_atomically(WINDOWS_FILE, lambda file: save_windows(file, windows, settings.one_hot))
    write_json_atomically(WINDOWS_SUMMARY, summary)
    print(
        f"{summary['characters']:,} characters, {summary['vocab_size']} of them distinct: "
        f"{summary['windows']:,} windows of {settings.maxlen}, "
        f"{summary['validation_windows']:,} more in the validation split, "
        f"{summary['test_windows']:,} in the test split"
    )


def require_room(windows: Windows, as_one_hot: bool) -> None:
    """Check that the disk has room for `data/windows.npz`, and the memory for one-hot tensors.

    Args:
        windows: what will be written.
        as_one_hot: whether as one-hot tensors, which are made in memory.

    Raises:
        StageError: the machine has less than they take.
    """
    count = len(windows.x) + len(windows.x_val) + len(windows.x_test)
    each = len(windows.vocabulary) if as_one_hot else windows.x.itemsize
    size = count * (windows.maxlen + 1) * each
    disk = shutil.disk_usage(WINDOWS_FILE.parent).free
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > disk or (as_one_hot and size > memory):
        one_hot = "set vectorize.one_hot to false, or " if as_one_hot else ""
        raise StageError(
            f"{WINDOWS_FILE} would take {_gigabytes(size)} of disk{' and of memory' if as_one_hot else ''}; "
            f"there are {_gigabytes(disk)} free on the disk and {_gigabytes(memory)} of memory; "
            f"{one_hot}raise vectorize.step, or lower vectorize.maxlen"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


if __name__ == "__main__":
    run_stage(main)
