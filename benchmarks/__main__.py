"""Benchmarks of the pipeline, each side in turn on this machine: A B A B.

    python -m benchmarks [--turns N] [--parts PART ...] [--corpus FILE] [--epochs N] [--steps N]
                         [--device gpu|cpu]

Parts: `article` (the whole pipeline against the article's script), `steps` (training steps against stock
Keras, PyTorch and the machine's own rate of matrix products), `sequences` (training at every position
against PyTorch and the products), `scale` (1, 10 and 100 MB of text), `fixed`
(what starting costs), `recipes` (an epoch of each recipe), `workers` (one process against two that train
together, two trainings at once), and, only if it is named, `gpu` (training on a GPU against the article's
`fit` and PyTorch, and 40 epochs from nothing; `--device cpu` rehearses it, small, on the CPU). Every side
runs in processes of its own. The output is Markdown tables: medians over the turns, and ratios of the turns
with the smallest and the largest.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measure import machine
from benchmarks.run_article import against_the_article
from benchmarks.run_fixed import fixed_costs
from benchmarks.run_gpu import gpu_in_turn, require_device
from benchmarks.run_recipes import recipes_in_turn
from benchmarks.run_scale import at_scale
from benchmarks.run_sequences import sequences_in_turn
from benchmarks.run_steps import steps_in_turn
from benchmarks.run_workers import workers_in_turn
from stages.common.cli import Parser, whole_number
from tests.support import ROOT, make_text


def main() -> None:
    """Run the parts that were asked for."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = ["article", "steps", "sequences", "scale", "fixed", "recipes", "workers"]
    parser.add_argument("--parts", nargs="+", choices=[*parts, "gpu"], default=parts, metavar="PART")
    parser.add_argument("--turns", type=whole_number(1, 1000), default=5, help="how often each side runs (5)")
    parser.add_argument("--corpus", type=Path, help="a text file (default: data/corpus.txt, or made-up text)")
    parser.add_argument(
        "--epochs",
        type=whole_number(1, 1000),
        help="epochs of each side in a turn (2); of `gpu`, of dvc repro (40)",
    )
    parser.add_argument(
        "--steps", type=whole_number(1, 100_000), default=60, help="optimizer steps in a run (60)"
    )
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu", help="of part `gpu` (gpu)")
    options = parser.parse_args()
    if options.corpus and not options.corpus.is_file():
        parser.error(f"argument --corpus: there is no file {options.corpus}")
    if "gpu" in options.parts:
        require_device(options.device)
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or ROOT / "data/corpus.txt"
        if not corpus.is_file():
            corpus = Path(scratch, "made-up.txt")
            corpus.write_text(make_text(600_893), encoding="utf-8")
        if "fixed" in options.parts:
            fixed_costs(options.turns)
        if "steps" in options.parts:
            steps_in_turn(options.steps, options.turns)
        if "sequences" in options.parts:
            sequences_in_turn(options.steps, options.turns)
        if "scale" in options.parts:
            at_scale(min(options.turns, 3))
        if "recipes" in options.parts:
            recipes_in_turn(corpus.resolve(), min(options.turns, 3))
        if "workers" in options.parts:
            workers_in_turn(corpus.resolve(), min(options.turns, 3))
        if "article" in options.parts:
            against_the_article(corpus.resolve(), options.epochs or 2, options.turns)
        if "gpu" in options.parts:
            if options.device == "cpu":
                corpus = Path(scratch, "rehearsal.txt")
                corpus.write_text(make_text(30_000), encoding="utf-8")
            gpu_in_turn(corpus.resolve(), options.epochs or 40, min(options.turns, 3), options.device)


if __name__ == "__main__":
    main()
