"""Stage `check`: is the file that `download.corpus` names there?

The stage `download` depends on that file. DVC looks for it before it runs the stage, in words of its own, and
removes the corpus of before. So a mistyped path is answered here first.
"""

from pathlib import Path

from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_PATH_FILE
from stages.text.corpora import is_description, read_corpus
from stages.text.own_text import require_file


def main() -> None:
    """Check the description or the text file; write its path."""
    path = Path(read_params().download.corpus)
    if is_description(path):
        read_corpus(path)
    else:
        require_file(path)
    write_bytes_atomically(CORPUS_PATH_FILE, f"{path}\n".encode())


if __name__ == "__main__":
    run_stage(main)
