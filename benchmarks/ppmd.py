"""PPMd, a compressor, as a model of the text, in a process of its own.

    python -m benchmarks.ppmd

It reads the corpus and the parameters of the workspace. What PPMd takes for the validation split is the size
of the training part with it, compressed, less that of the training part alone. It goes on learning
while it reads. Prints one line of JSON: bits per character.
"""

import json

from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE
from stages.text.normalization import read_text, split_starts

ORDER = 6  # the package's own choice
MEGABYTES = 256  # more than it fills with a few million characters: where it is full, PPMd starts anew


def main() -> None:
    """Compress three beginnings of the text."""
    import pyppmd

    settings = read_params().vectorize
    text = read_text(CORPUS_FILE, settings)
    ends = [*split_starts(len(text), settings), len(text)]
    sizes = [
        8 * len(pyppmd.compress(text[:end].encode(), max_order=ORDER, mem_size=MEGABYTES << 20, variant="I"))
        for end in ends
    ]
    parts = {"validation": (0, 1), "test": (1, 2), "last_tenth": (0, 2)}
    bits = {name: (sizes[b] - sizes[a]) / (ends[b] - ends[a]) for name, (a, b) in parts.items()}
    print(json.dumps(bits))


if __name__ == "__main__":
    main()
