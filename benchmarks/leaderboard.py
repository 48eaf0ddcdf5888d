"""Leaderboard: time to quality on this machine, each row in turn: A B C, A B C.

    python -m benchmarks.leaderboard [--corpus FILE] [--normalize] [--recipes NAME ...] [--precision P ...]
                                     [--others ROW ...] [--nanogpt DIR] [--turns N] [--reach LOSS ...]

Rows: each recipe in each precision, by `dvc repro` in a new project with an empty cache; the best n-gram;
PPMd, a compressor (if `pyppmd` is installed); PyTorch's nn.LSTM with the training of the recipe `quick` (if
`torch` is installed); with `--nanogpt` nanoGPT's setting for a CPU. All learn from the first nine tenths
of the text. The validation split, the next twentieth, chooses the epoch; the test split, the last
twentieth, judges it once. Every row runs in processes of its own. The output is a Markdown table: medians
over the turns. docs/leaderboard.md says what can be compared.
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.leaderboard_rows import Board, Result, middle_of
from benchmarks.measure import machine, measured, middle, table
from benchmarks.ppmd import MEGABYTES, ORDER
from benchmarks.projects import project
from stages.common.cli import Parser, number, whole_number
from stages.common.errors import StageError, run_stage
from stages.common.recipes import names
from tests.support import make_text

OTHERS = ("n-gram", "ppmd", "torch")
NANOGPT_TEXT = "data/shakespeare_char/input.txt"


def options_of() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--corpus",
        type=Path,
        default=Path("corpora/tinyshakespeare.yaml"),
        help="a text file, or a description in corpora/ (corpora/tinyshakespeare.yaml)",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="lowercase the text and turn newlines into spaces; without it both are kept",
    )
    recipes = ["quick", "good", "best"]
    parser.add_argument("--recipes", nargs="*", choices=names(), default=recipes, metavar="NAME")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=["float32", "mixed_bfloat16"],
        default=["float32", "mixed_bfloat16"],
        metavar="P",
        help="of the recipes: float32, mixed_bfloat16 (both)",
    )
    parser.add_argument(
        "--others", nargs="*", choices=OTHERS, default=OTHERS, metavar="ROW", help="n-gram, ppmd, torch (all)"
    )
    parser.add_argument(
        "--nanogpt", type=Path, metavar="DIR", help="a clone of nanoGPT with its data prepared"
    )
    parser.add_argument("--turns", type=whole_number(1, 1000), default=3, help="how often each row runs (3)")
    parser.add_argument(
        "--reach",
        nargs="+",
        type=number(0.01, 100),
        default=[1.886, 1.470],
        metavar="LOSS",
        help="validation losses whose first epoch is timed (1.886 1.470: nanoGPT on a CPU and on an A100)",
    )
    parser.add_argument("--rehearse", action="store_true", help="try it with a made-up text and tiny models")
    options = parser.parse_args()
    if not options.corpus.is_file() and not options.rehearse:
        parser.error(f"argument --corpus: there is no file {options.corpus}")
    if options.nanogpt and not (options.nanogpt / "data/shakespeare_char/val.bin").is_file():
        parser.error(
            f"argument --nanogpt: {options.nanogpt} has no data/shakespeare_char/val.bin; run prepare.py"
        )
    return options


def text_file(options: argparse.Namespace, scratch: Path) -> Path:
    """The text as a file: made up for a rehearsal, or downloaded where the corpus is a description."""
    if options.rehearse:
        path = scratch / "made-up.txt"
        path.write_text(make_text(30_000), encoding="utf-8")
        return path
    if options.corpus.suffix != ".yaml":
        return options.corpus.resolve()
    sources: dict[str, Any] = {
        "download__corpus": f"corpora/{options.corpus.name}",
        "download__offline_corpus": None,
    }
    folder = project(scratch / options.corpus.stem, **sources)
    shutil.copy(options.corpus, folder / "corpora")
    for stage in ("check", "download"):
        measured(["-m", f"stages.{stage}"], folder)
    return folder / "data/corpus.txt"


def rows_of(board: Board, options: argparse.Namespace) -> dict[str, Callable[[], Result]]:
    """Name the rows and what runs for them; say which are left out."""
    rows: dict[str, Callable[[], Result]] = {}
    for name in options.recipes:
        for precision in options.precision:
            rows[f"`{name}`, {precision}"] = partial(board.recipe, name, precision)
    if "n-gram" in options.others:
        rows["the best n-gram"] = board.ngram
    if "ppmd" in options.others and available("pyppmd", "PPMd"):
        rows[f"PPMd, order {ORDER}, {MEGABYTES} MB"] = board.ppmd
    if "torch" in options.others and available("torch", "PyTorch"):
        rows["PyTorch's `nn.LSTM`, trained as `quick`, float32"] = board.torch
    if options.nanogpt and available("torch", "nanoGPT"):
        folder = options.nanogpt.resolve()
        same = not options.normalize and (folder / NANOGPT_TEXT).read_bytes() == board.corpus.read_bytes()
        if same or options.rehearse:
            rows["nanoGPT, its setting for a CPU"] = partial(board.nanogpt, folder)
        else:
            print(f"{NANOGPT_TEXT} is another text: nanoGPT is left out")
    return rows


def available(package: str, row: str) -> bool:
    """Whether a package that a row needs is installed; print a line if not."""
    there = find_spec(package) is not None
    if not there:
        print(f"{package} is not installed: {row} is left out")
    return there


def loss(value: float) -> str:
    """A loss, or nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.3f}"


def cells(name: str, result: Result) -> tuple[str, ...]:
    """A row of the table."""
    losses = (loss(each) for each in (result.validation, result.test, result.last_tenth))
    reached = ("never" if math.isinf(seconds) else middle([seconds]) for seconds in result.reached)
    bits = loss(result.last_tenth / math.log(2))
    return (name, result.size, *losses, bits, middle([result.seconds]), middle([result.training]), *reached)


def main() -> None:
    """Run all rows in turn and print the table."""
    options = options_of()
    print(machine())
    changes: dict[str, Any] = {
        "vectorize__validation": 0.05,
        "vectorize__test": 0.05,
        "vectorize__lowercase": options.normalize,
        "vectorize__newlines_to_spaces": options.normalize,
        "train__device": "cpu",
    }
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch, "prepared")
        prepared.mkdir()
        corpus = text_file(options, Path(scratch))
        board = Board(corpus, changes, tuple(options.reach), prepared, options.rehearse)
        rows = rows_of(board, options)
        if not rows:
            raise StageError("there is no row to run; --help says which there are")
        results: dict[str, list[Result]] = {name: [] for name in rows}
        for turn in range(options.turns):
            for name, run in rows.items():
                results[name].append(run())
                print(turn + 1, *cells(name, results[name][-1]), sep=" | ", flush=True)
    text = "a made-up text" if options.rehearse else options.corpus.stem
    letters = "in lower case, without newlines" if options.normalize else "case and newlines kept"
    table(
        f"Leaderboard ({text}, {letters}; medians of {options.turns} turns), losses in nats per character",
        (
            "",
            "parameters",
            "validation",
            "test",
            "last tenth",
            "bits per character",
            "all, s",
            "training, s",
            *(f"to {loss:.3f}, s" for loss in options.reach),
        ),
        (cells(name, middle_of(turns)) for name, turns in results.items()),
    )


if __name__ == "__main__":
    run_stage(main)
