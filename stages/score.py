"""How surprising any text is to the trained model: `python -m stages.score FILE`."""

import argparse
import json
import math
import sys
from pathlib import Path

from stages.common.cli import Parser, add_model_option, whole_number
from stages.common.errors import StageError, run_stage
from stages.evaluation.surprise import WIDTH, left_out, passages, rounded
from stages.text.normalization import normalize
from stages.text.prompts import read_by_hand
from stages.text.vocabulary import encode_known
from stages.text.vocabulary_file import read_model_text

NAMED = 5  # kinds of characters outside the vocabulary that a message names


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="python -m stages.score",
        description="Measure how surprising a text is to the trained model, in bits per character.",
        epilog="The text is normalized as the training text was. Characters outside the vocabulary are named "
        "and left out.",
    )
    parser.add_argument("file", metavar="FILE", help="a UTF-8 text; - reads standard input")
    add_model_option(parser)
    shown = f"how many of the most surprising passages to show, of {WIDTH} characters each (%(default)s)"
    parser.add_argument("--passages", type=whole_number(0, 1000), default=5, metavar="N", help=shown)
    as_json = "print JSON, with the bits of each character"
    parser.add_argument("--json", action="store_true", help=as_json)
    return parser.parse_args()


def main() -> None:
    """Score the text that the command line names; print it."""
    options = arguments()
    file = None if options.file == "-" else Path(options.file)
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
    # TensorFlow takes seconds to import, so mistakes in the text are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that the numbers do not depend on the device
    from stages.model.scoring import surprise
    from stages.training.loading import load_trained

    bits = surprise(load_trained(options.model, None, text), indices, 0, text.carried)
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


if __name__ == "__main__":
    run_stage(main)
