"""Generation by hand: `python -m stages.generate --prompt "..."` prints each character as it comes.

It reads `models/model.keras`, or the checkpoint of one epoch, and `models/vocabulary.json`. It writes to
standard output only.
"""

import argparse
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from stages.common.cli import Parser, add_model_option, number, whole_number
from stages.common.errors import run_stage
from stages.text.prompts import read_prompt
from stages.text.vocabulary_file import read_model_text


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="python -m stages.generate",
        description="Continue a prompt with the trained model, one character at a time.",
        epilog="Only the continuation is printed. Without a prompt, the first characters of the training "
        "text are continued. A prompt is normalized as the training text was.",
    )
    add_model_option(parser)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="text to continue; - reads standard input")
    prompt.add_argument("--prompt-file", metavar="FILE", type=Path, help="a UTF-8 file to continue")

    def add(name: str, kind: Callable[[str], float], help: str, default: float | None = None) -> None:
        parser.add_argument(name, type=kind, default=default, metavar="N", help=help)

    drawn = "0 takes the likeliest character, 1 draws from the model's own distribution (%(default)s)"
    add("--temperature", number(0, 100), drawn, 0.5)
    add("--length", whole_number(1, 10**9), "characters to generate (%(default)s)", 400)
    add("--epoch", whole_number(0, 99_999), "the epoch's checkpoint, from 0 (default: the final model)")
    add("--top-k", whole_number(1, 10**6), "draw among the N likeliest characters only")
    add("--seed", whole_number(0, 2**32 - 1), "random seed; equal seeds give equal texts (%(default)s)", 0)
    add("--count", whole_number(1, 10**9), "how many texts, one line each (%(default)s)", 1)
    again = "ask for a prompt again and again; an empty line continues the last text"
    parser.add_argument("--interactive", action="store_true", help=again)
    return parser.parse_args()


def main() -> None:
    """Generate as the command line says."""
    options = arguments()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when the reader of a pipe ends
    text = read_model_text(options.model)

    def encoded(prompt: str | None) -> deque[int]:
        indices = text.encode(prompt, "the prompt").tolist()
        return deque(indices, maxlen=None if text.carried else text.maxlen)

    prompt = read_prompt(options.prompt, options.prompt_file)
    window = encoded(prompt)
    # TensorFlow takes seconds to import, so mistakes in the above are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that the text does not depend on the device
    from stages.model.streaming import StreamingSampler, converse
    from stages.training.loading import load_trained

    model = load_trained(options.model, options.epoch, text)
    sampler = StreamingSampler(
        model, text.vocabulary, options.temperature, options.top_k, options.seed, text.carried
    )
    if options.interactive:
        converse(sampler, options.length, window, encoded, begin=prompt is not None)
    else:
        for at in range(options.count):
            sampler.print(window.copy(), options.length, at)


def until_interrupted() -> None:
    """Run `main`; Ctrl-C ends it without a message, since there is nothing to keep."""
    try:
        main()
    except KeyboardInterrupt:
        print()
        sys.exit(130)


if __name__ == "__main__":
    run_stage(until_interrupted)
