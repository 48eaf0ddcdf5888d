r"""Stage `baseline`: how well a plain n-gram model predicts the held-out part, to compare the LSTM with.

Interpolated Witten-Bell smoothing (Witten & Bell 1991; Chen & Goodman 1999, section 2.5): with N(h) for
how often a context h is followed by anything in the training part, T(h) for by how many different
characters,

    P(c | h) = (N(hc) + T(h) P(c | h')) / (N(h) + T(h)),

where h' is h without its first character and, below the empty context, every character of the charset is
equally likely. A context that the training part does not have says nothing: P(c | h) = P(c | h').
"""

import json
import math
from typing import Any

import numpy as np

from stages.errors import run_stage
from stages.files import write_bytes_whole
from stages.layout import BASELINE_METRICS, CORPUS_FILE
from stages.params import read_params
from stages.text import border_of, read_text
from stages.windows import encode

LONGEST_N = 12


def main() -> None:
    """Measure n-grams on the characters that `val_loss` is measured on; write the best n's figures."""
    settings = read_params().vectorize
    text = read_text(CORPUS_FILE, settings.lowercase, settings.newlines_to_spaces)
    indices, charset = encode(text)
    border = border_of(len(indices), settings.validation)
    figures: dict[str, Any] = {}
    if border < len(indices):
        longest = min(LONGEST_N, settings.maxlen + 1)
        targets = np.arange(border + settings.maxlen, len(indices), settings.validation_step)
        bits = bits_per_char(indices, len(charset), border, targets, longest)
        best = int(np.argmin(bits))
        loss = bits[best] * math.log(2)
        figures["ngram"] = {"n": best + 1, "val_bits_per_char": bits[best], "val_loss": loss}
        print(f"{len(targets):,} characters held out; bits of n-grams, n = 1 to {longest}: ", end="")
        print(", ".join(f"{each:.3f}" for each in bits))
    else:
        print("nothing is held out (vectorize.validation: 0): nothing to compare with")
    write_bytes_whole(BASELINE_METRICS, (json.dumps(figures, indent=2) + "\n").encode())


def bits_per_char(
    indices: np.ndarray, size: int, border: int, targets: np.ndarray, longest: int
) -> list[float]:
    """Mean -log2 P of the characters at `targets`, for n-grams of n = 1 to `longest`.

    indices (len(text),) into a charset of `size`; those below `border` are trained on; targets are
    positions with at least `longest` - 1 characters of the held-out part before them.
    """
    characters = indices.astype(np.int64)
    probability = np.full(len(targets), 1 / size)
    # of each position: a number for the n - 1 characters before it, equal where they are equal
    context = np.zeros(len(characters), np.int64)
    bits = []
    for n in range(1, longest + 1):
        _, gram = np.unique(context * size + characters, return_inverse=True)
        trained = np.arange(n - 1, border)  # positions whose context lies in the training part too
        of_context = np.bincount(context[trained], minlength=context.max() + 1)
        of_gram = np.bincount(gram[trained], minlength=gram.max() + 1)
        kinds = np.bincount(
            context[trained][np.unique(gram[trained], return_index=True)[1]], minlength=len(of_context)
        )
        seen = of_context[context[targets]]
        different = kinds[context[targets]]
        probability = np.where(
            seen > 0,
            (of_gram[gram[targets]] + different * probability) / np.maximum(seen + different, 1),
            probability,
        )
        bits.append(float(-np.log2(probability).mean()))
        # one character more of context: the n before the next position are this position's gram
        context = np.concatenate([[gram.max() + 1], gram[:-1]])
    return bits


if __name__ == "__main__":
    run_stage(main)
