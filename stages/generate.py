"""Generation by hand: `python -m stages.generate --prompt "..."`, a character at a time as it comes.

Reads what the pipeline made, `models/model.keras` or one epoch's snapshot, and writes nothing but text to
standard output.
"""

import argparse
import itertools
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from stages.errors import StageError, fail, run_stage
from stages.layout import EPOCHS_DIR, MODEL_FILE
from stages.params import read_params
from stages.randomness import keyed_generator
from stages.snapshots import DamagedSnapshot, epoch_files, file_name, read_snapshot
from stages.text import as_the_article_reads
from stages.windows import first_window

NextLogits = Callable[[Sequence[int]], np.ndarray]


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line and exit code 1, as everywhere in this project."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the usage."""
        fail(f"{message} (see --help)")
        raise SystemExit(1)  # never reached: `fail` ends the program


def _whole(text: str, low: int, high: int) -> int:
    """A whole number in a range, for argparse."""
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"got {text!r}; takes a whole number from {low:,} to {high:,}")
    return int(text)


def _temperature(text: str) -> float:
    """A temperature, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"got {text!r}; takes a number from 0 to 100")
    return value


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = _Parser(
        prog="python -m stages.generate",
        description="Continue a prompt with the trained model, a character at a time.",
        epilog="Without a prompt the first characters of the training text are continued. A prompt is "
        "lowercased and its newlines become spaces where the parameters say so of the training text.",
    )
    add = parser.add_argument
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what to continue; - reads standard input")
    prompt.add_argument("--prompt-file", metavar="FILE", type=Path, help="a UTF-8 file to continue")
    add(
        "--temperature",
        type=_temperature,
        default=0.5,
        metavar="T",
        help="0 takes the likeliest character, 1 draws from the model's own distribution (%(default)s)",
    )

    def add_whole(name: str, low: int, high: int, help: str, default: int | None = None) -> None:
        add(name, type=lambda text: _whole(text, low, high), default=default, metavar="N", help=help)

    add_whole("--length", 1, 10**9, "characters to generate (%(default)s)", 400)
    add_whole("--epoch", 0, 99_999, "the snapshot after this epoch, from 0 (default: the final model)")
    add_whole("--top-k", 1, 10**6, "draw among the N likeliest characters only")
    add_whole("--seed", 0, 2**32 - 1, "of the draws; the same seed, the same text (%(default)s)", 0)
    add_whole("--count", 1, 10**9, "how many texts, each on a line of its own (%(default)s)", 1)
    add(
        "--interactive",
        action="store_true",
        help="ask for a prompt again and again; an empty line goes on where the text stopped",
    )
    return parser.parse_args()


def main() -> None:
    """Generate as the command line says."""
    options = arguments()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when nobody reads on
    settings = read_params().vectorize
    start, charset = first_window()
    prompt = given_prompt(options.prompt, options.prompt_file)
    # TensorFlow takes seconds to import, so what is wrong with the above is said before it
    from stages.device import set_up_tensorflow
    from stages.generator import encode_prompt

    set_up_tensorflow("cpu")  # so that the text does not depend on the device

    def encoded(text: str) -> deque[int]:
        text = as_the_article_reads(text, settings.lowercase, settings.newlines_to_spaces)
        try:
            return deque(encode_prompt(text, charset, len(start)).tolist(), maxlen=len(start))
        except StageError as error:
            raise StageError(str(error).replace("sample.prompt", "the prompt", 1)) from None

    window = encoded(start if prompt is None else prompt)
    next_logits = load(options.epoch, len(start), len(charset))

    def write(window: deque[int], number: int) -> None:
        draws = keyed_generator(options.seed, "generate by hand", number)
        new = continuation(next_logits, window, options.temperature, options.top_k, draws)
        for index in itertools.islice(new, options.length):
            print(charset[index], end="", flush=True)
        print(flush=True)

    if options.interactive:
        converse(window, encoded, write, begin=prompt is not None)
    else:
        for number in range(options.count):
            write(window.copy(), number)


def until_interrupted() -> None:
    """`main`, which Ctrl-C ends without a word: there is nothing to keep."""
    try:
        main()
    except KeyboardInterrupt:
        print()
        sys.exit(130)


def given_prompt(text: str | None, file: Path | None) -> str | None:
    """The prompt from where the options say, or None. Raises StageError for a file that is not text."""
    if file is None:
        return sys.stdin.read().removesuffix("\n") if text == "-" else text
    try:
        return file.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise StageError(f"{file} is not UTF-8 text (byte {error.start})") from None


def converse(
    window: deque[int],
    encoded: Callable[[str], deque[int]],
    write: Callable[[deque[int], int], None],
    begin: bool,
) -> None:
    """Write, ask, write again, until the input ends; a prompt that is wrong is named and asked anew."""
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


def load(epoch: int | None, maxlen: int, size: int) -> NextLogits:
    """A function from the last characters, as indices, to the logits of the next one.

    epoch: of a snapshot, None for the final model. Raises StageError where there is none, or one of
    another charset or window length than maxlen and size.
    """
    path = MODEL_FILE if epoch is None else EPOCHS_DIR / file_name(epoch)
    if not path.exists():
        there = [int(file.stem.split("-")[1]) for file in epoch_files()]
        others = f"; there are epochs {there[0]} to {there[-1]}" if there and epoch is not None else ""
        raise StageError(f"{path} is missing{others}; `dvc repro` makes it")
    import keras

    from stages.model import build_model

    try:
        if epoch is None:
            model = keras.models.load_model(path, compile=False)
        else:
            snapshot = read_snapshot(path)
            model = build_model(**snapshot.model)
            model.set_weights(snapshot.weights)
    except (DamagedSnapshot, ValueError) as error:
        raise StageError(f"{path} cannot be read: {error}") from None
    if model.input_shape[1:] != (maxlen, size):
        raise StageError(
            f"{path} takes windows of {model.input_shape[1]} out of {model.input_shape[2]} characters, "
            f"data/windows.npz has {maxlen} out of {size}; `dvc repro` makes them fit"
        )
    return compiled(model)


def compiled(model) -> NextLogits:
    """The logits after 1 to maxlen characters from a zero state, as one compiled program."""
    import tensorflow as tf

    from stages.model import recurrence

    sizes, advance, logits = recurrence(model)
    maxlen, size = model.input_shape[1:]

    @tf.function(
        jit_compile=True,
        autograph=False,
        input_signature=[tf.TensorSpec((maxlen,), tf.int32), tf.TensorSpec((), tf.int32)],
    )
    def program(window, start):
        def step(t, _, states):
            return t + 1, *advance(tf.one_hot(tf.gather(window, t), size)[None], states)

        states = [tf.zeros((1, units)) for units in sizes]
        _, output, _ = tf.while_loop(lambda t, *_: t < maxlen, step, (start, states[-1], states))
        return logits(output)[0]

    def next_logits(indices: Sequence[int]) -> np.ndarray:
        start = maxlen - len(indices)
        return program(np.array([0] * start + list(indices), np.int32), np.int32(start)).numpy()

    return next_logits


def continuation(
    next_logits: NextLogits,
    window: deque[int],
    temperature: float,
    top_k: int | None,
    draws: np.random.Generator,
) -> Iterator[int]:
    """Index after index, without end, each from the `maxlen` before it: the article's procedure.

    window: the last `maxlen` indices, to which each new one is added.
    """
    while True:
        index = draw(next_logits(window), temperature, top_k, draws.random())
        window.append(index)
        yield index


def draw(logits: np.ndarray, temperature: float, top_k: int | None, uniform: float) -> int:
    """One index from softmax(logits / temperature) among the `top_k` largest, None for all.

    logits (V,); uniform in [0, 1), its place in the cumulative distribution. Temperature 0 is arg max.
    Of equal logits the first ones are among the top k.
    """
    below_best = (logits - logits.max()).astype(np.float64)
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp(below_best / max(temperature, 1e-300))
    if top_k is not None:
        weights[np.argsort(-logits, kind="stable")[top_k:]] = 0
    cumulative = np.cumsum(weights)
    drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return int(min(drawn, len(logits) - 1))


if __name__ == "__main__":
    run_stage(until_interrupted)
