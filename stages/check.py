"""Stage `check`: are the parameters valid, and is the file that `download.corpus` names there?

DVC removes the outputs of a stage before it runs the stage. So a mistake is answered here first, where it
costs nothing.
"""

from pathlib import Path

from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_PATH_FILE
from stages.text.corpora import is_description, read_corpus
from stages.text.own_text import require_file


def main() -> None:
    """Check the parameters and the description or the text file; write its path."""
    path = Path(read_params().download.corpus)
    if is_description(path):
        read_corpus(path)
    else:
        require_file(path)
    write_bytes_atomically(CORPUS_PATH_FILE, f"{path}\n".encode())


if __name__ == "__main__":
    run_stage(main)
