"""Stage `download`: the corpus, byte for byte as its source serves it, to `data/corpus.txt`.

The article's first step (`get_file("nietzsche.txt", ...)`), with a known hash.
"""

import hashlib
from pathlib import Path

from stages.common.errors import run_stage
from stages.common.files import require_as_checked, sha256_of, write_bytes_atomically, write_json_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE, CORPUS_FILES, CORPUS_METRICS
from stages.text.corpora import is_description
from stages.text.own_text import count_characters, read_own_text
from stages.text.sources import get_corpus

SHOWN = 20  # characters of a name, so that `dvc metrics show` fits into 100 columns


def main() -> None:
    """Get the corpus or the user's own text, and write it with its name."""
    settings = read_params().download
    path = Path(settings.corpus)
    for file in filter(is_description, settings.corpora):
        if file.is_file():  # a missing one is reported where it is needed
            require_as_checked(CORPUS_FILES, file, sha256_of(file))
    if is_description(path):
        name, content, source = get_corpus(settings)
    else:
        name, source = path.name, "a file of your own"
        content = read_own_text(path, settings)
    characters = count_characters(content, name)
    write_bytes_atomically(CORPUS_FILE, content)
    shown = name if len(name) <= SHOWN else name[: SHOWN - 1] + "…"
    write_json_atomically(CORPUS_METRICS, {"corpus": shown})
    print(
        f"corpus {name} from {source}: {len(content):,} bytes, {characters:,} characters, "
        f"sha256 {hashlib.sha256(content).hexdigest()}"
    )


if __name__ == "__main__":
    run_stage(main)
