"""Generation by hand: `python -m stages.generate --prompt "..."` prints each character as it comes.

It reads `models/model.keras`, or the checkpoint of one epoch, and writes to standard output only.
"""

import argparse
import itertools
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from stages.common.cli import Parser, number, whole_number
from stages.common.errors import StageError, run_stage
from stages.common.params import read_params
from stages.common.randomness import keyed_generator
from stages.text.normalization import normalize
from stages.text.vocabulary import encode_prompt
from stages.text.windows_file import first_window

Write = Callable[[deque[int], int], None]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="python -m stages.generate",
        description="Continue a prompt with the trained model, one character at a time.",
        epilog="Without a prompt, the first characters of the training text are continued. A prompt is "
        "normalized as the training text was.",
    )
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="text to continue; - reads standard input")
    prompt.add_argument("--prompt-file", metavar="FILE", type=Path, help="a UTF-8 file to continue")

    def add(name: str, kind: Callable[[str], float], help: str, default: float | None = None) -> None:
        parser.add_argument(name, type=kind, default=default, metavar="N", help=help)

    add("--temperature", number(0, 100), "0 takes the likeliest character, 1 draws from the model's "
        "own distribution (%(default)s)", 0.5)  # fmt: skip
    add("--length", whole_number(1, 10**9), "characters to generate (%(default)s)", 400)
    add("--epoch", whole_number(0, 99_999), "the epoch's checkpoint, from 0 (default: the final model)")
    add("--top-k", whole_number(1, 10**6), "draw among the N likeliest characters only")
    add("--seed", whole_number(0, 2**32 - 1), "random seed; equal seeds give equal texts (%(default)s)", 0)
    add("--count", whole_number(1, 10**9), "how many texts, one line each (%(default)s)", 1)
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="ask for a prompt again and again; an empty line continues the last text",
    )
    return parser.parse_args()


def main() -> None:
    """Generate as the command line says."""
    options = arguments()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when the reader of a pipe ends
    settings = read_params().vectorize
    start, vocabulary = first_window()

    def encoded(text: str) -> deque[int]:
        indices = encode_prompt(normalize(text, settings), vocabulary, len(start), "the prompt")
        return deque(indices.tolist(), maxlen=len(start))

    prompt = given_prompt(options.prompt, options.prompt_file)
    window = encoded(start if prompt is None else prompt)
    # TensorFlow takes seconds to import, so mistakes in the above are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that the text does not depend on the device
    from stages.model.streaming import compile_next_logits, continuation
    from stages.training.loading import load_trained

    next_logits = compile_next_logits(load_trained(options.epoch, len(start), len(vocabulary)))

    def write(window: deque[int], number: int) -> None:
        draws = keyed_generator(options.seed, "generate by hand", number)
        indices = continuation(next_logits, window, options.temperature, options.top_k, draws)
        for index in itertools.islice(indices, options.length):
            print(vocabulary[index], end="", flush=True)
        print(flush=True)

    if options.interactive:
        converse(window, encoded, write, begin=prompt is not None)
    else:
        for number_ in range(options.count):
            write(window.copy(), number_)


def given_prompt(text: str | None, file: Path | None) -> str | None:
    """Read the prompt that the options name.

    Args:
        text: `--prompt`.
        file: `--prompt-file`.

    Returns:
        The prompt, or None where there is neither.

    Raises:
        StageError: the file is not UTF-8 text.
    """
    if file is None:
        return sys.stdin.read().removesuffix("\n") if text == "-" else text
    try:
        return file.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise StageError(f"{file} is not UTF-8 text (byte {error.start})") from None


def converse(window: deque[int], encoded: Callable[[str], deque[int]], write: Write, begin: bool) -> None:
    """Generate and ask for a prompt in turn, until the input ends. A wrong prompt is named.

    Args:
        window: the indices to start from.
        encoded: turns a prompt into indices.
        write: prints a continuation.
        begin: whether to generate before the first question.
    """
    number = 0
    while True:
        if begin:
            write(window, number)
            number += 1
        begin = True
        try:
            if line := input("> "):
                window = encoded(line)
        except EOFError:
            print()
            return
        except StageError as error:
            print(f"error: {error}", file=sys.stderr)
            begin = False


def until_interrupted() -> None:
    """Run `main`; Ctrl-C ends it without a message, since there is nothing to keep."""
    try:
        main()
    except KeyboardInterrupt:
        print()
        sys.exit(130)


if __name__ == "__main__":
    run_stage(until_interrupted)
