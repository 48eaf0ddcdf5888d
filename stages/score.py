"""Stage `score`: how surprising the text is to the final model, character by character, `metrics/score.json`.

With a file, a command: `python -m stages.score FILE` measures the same of any text and prints it.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from stages.common.cli import Parser, add_model_option, whole_number
from stages.common.errors import StageError, run_stage
from stages.common.files import read_output, write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import BASELINE_FILE, CORPUS_FILE, MODELS_DIR, SCORE_FILE
from stages.evaluation.ngram import best_of
from stages.evaluation.surprise import (
    WIDTH,
    left_out,
    ngram_bits,
    passages,
    rounded,
    score_line,
    scored_part,
)
from stages.text.normalization import normalize, read_text
from stages.text.prompts import read_by_hand
from stages.text.vocabulary import encode_known
from stages.text.vocabulary_file import ModelText, read_model_text

NAMED = 5  # kinds of characters outside the vocabulary that a message names


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="python -m stages.score",
        description="Measure how surprising a text is to the trained model, in bits per character.",
        epilog="The text is normalized as the training text was. Characters outside the vocabulary are named "
        "and left out. Without FILE this is the pipeline's stage `score`.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="a UTF-8 text; - reads standard input")
    add_model_option(parser)
    shown = f"how many of the most surprising passages to show, of {WIDTH} characters each (%(default)s)"
    parser.add_argument("--passages", type=whole_number(0, 1000), default=5, metavar="N", help=shown)
    as_json = "print JSON, with the bits of each character"
    parser.add_argument("--json", action="store_true", help=as_json)
    options = parser.parse_args()
    if options.file is None and len(sys.argv) > 1:
        parser.error("FILE is missing")
    return options


def main() -> None:
    """Score the corpus as a stage, or the text that the command line names."""
    options = arguments()
    if options.file is None:
        of_the_corpus()
    else:
        of_a_file(None if options.file == "-" else Path(options.file), options)


def of_the_corpus() -> None:
    """Score the first characters of the validation split, or of the text without one; write a file."""
    text = read_model_text(MODELS_DIR)
    corpus = read_text(CORPUS_FILE, text)
    start, end = scored_part(len(corpus), read_params().vectorize)
    best = best_of(read_output(BASELINE_FILE, "baseline"))
    before = min(start, text.maxlen)  # characters that the first window needs
    begin = start - before if best is None else 0  # the n-gram counts all of them
    indices, positions = encode_known(corpus[begin:end], text.vocabulary)
    if len(positions) < end - begin:
        raise StageError(f"{MODELS_DIR} has a model of another text than {CORPUS_FILE}; run `dvc repro`")
    ngram = None
    if best is not None:
        n = int(best["n"])
        ngram = n, ngram_bits(indices, len(text.vocabulary), start, n)
    bits = model_bits(MODELS_DIR, text, indices[start - before - begin :], before)
    line = score_line(corpus[start:end], start, bits, ngram)
    write_bytes_atomically(SCORE_FILE, line.encode())
    beside = "" if ngram is None else f", {ngram[1].mean():.3f} by the {ngram[0]}-gram"
    print(f"{end - start:,} characters, {bits.mean():.3f} bits each{beside}: {SCORE_FILE}")


def of_a_file(file: Path | None, options: argparse.Namespace) -> None:
    """Score any text; print it.

    Args:
        file: the text; None for standard input.
        options: the command line.

    Raises:
        StageError: the text has no character of the vocabulary.
    """
    text = read_model_text(options.model)
    name = str(file or "standard input")
    content = normalize(read_by_hand(file), text)
    indices, positions = encode_known(content, text.vocabulary)
    strange = left_out(content, positions)
    if strange:
        kinds = [f"{kind!r} ({count:,})" for kind, count in list(strange.items())[:NAMED]]
        others = f" and {len(strange) - NAMED:,} more" if len(strange) > NAMED else ""
        print(
            f"warning: {name}: characters outside the vocabulary are left out: {', '.join(kinds)}{others}",
            file=sys.stderr,
        )
    if not len(indices):
        what = "has no character of the vocabulary" if content else "is empty"
        raise StageError(f"{name} {what}; there is nothing to score")
    bits = model_bits(options.model, text, indices, 0)
    known = "".join(content[at] for at in positions)
    width = min(WIDTH, len(known))
    found = [
        {
            "position": int(positions[at]),
            "bits_per_char": round(float(bits[at : at + width].mean()), 4),
            "text": known[at : at + width],
        }
        for at in passages(bits.tolist(), options.passages)
    ]
    mean = float(bits.mean())
    if options.json:
        tree = {
            "characters": len(known),
            "left_out": strange,
            "bits_per_char": round(mean, 4),
            "passages": found,
            "text": known,
            "bits": rounded(bits),
        }
        print(json.dumps(tree, allow_nan=False))  # in ASCII, which every terminal has
        return
    print(
        f"{len(known):,} characters: {mean:.4f} bits per character, {mean * math.log(2):.4f} nats, "
        f"perplexity {2**mean:.3f}"
    )
    if found:
        print("most surprising passages (bits per character, position, text):")
    for passage in found:
        print(f"{passage['bits_per_char']:7.3f} {passage['position']:10,}  {passage['text']!r}")


def model_bits(folder: Path, text: ModelText, indices: np.ndarray, first: int) -> np.ndarray:
    """Compute the bits of each character from `first` on under the final model of a folder."""
    # TensorFlow takes seconds to import, so mistakes in the text are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that the numbers do not depend on the device
    from stages.model.scoring import surprise
    from stages.training.loading import load_trained

    return surprise(load_trained(folder, None, text), indices, first, text.carried)


if __name__ == "__main__":
    run_stage(main)
