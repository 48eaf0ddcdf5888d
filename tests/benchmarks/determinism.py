"""What determinism costs: training steps with and without it, in turn, each in a process of its own.

    python -m tests.benchmarks.determinism [--turns N] [--steps N]

With: one thread an operation, deterministic operations, keyed draws, sums in a fixed order. Without:
the same fused step in a TensorFlow that is left as it comes (all cores within an operation too). Beside
them stock Keras `fit` as it comes, with neither.
"""

import argparse
import json
import statistics
import subprocess
import sys

from tests.conftest import ROOT

STEPS = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
kind, steps = sys.argv[1], int(sys.argv[2])
if kind == "with":
    from stages.device import set_up_tensorflow
    set_up_tensorflow("cpu")
import keras
import numpy as np
from stages.params import read_params
from stages.trainer import Trainer
from stages.windows import Windows
rng = np.random.default_rng(0)
x = rng.integers(0, 56, (1024 * steps, 40)).astype("u1")
y = rng.integers(0, 56, 1024 * steps).astype("u1")
trainer = Trainer(read_params(), Windows(x, y, x[:0], y[:0], "".join(map(chr, range(40, 96)))), "cpu")
if kind == "fit":
    hot, targets = np.eye(56, dtype=bool)[x], np.eye(56, dtype=bool)[y]
    def run():
        trainer.model.fit(hot, targets, batch_size=1024, verbose=0)
else:
    def run():
        trainer.epoch(0)
run()
began = time.perf_counter()
run()
print(json.dumps(len(x) / (time.perf_counter() - began)))
"""


def windows_per_second(kind: str, steps: int) -> float:
    """One measurement, compilation not counted."""
    command = [sys.executable, "-c", STEPS, kind, str(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Take turns and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.determinism", description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="how often each side runs (5)")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps in a run (60)")
    options = parser.parse_args()
    kinds = ["with", "without", "fit"]
    turns = []
    for _ in range(options.turns):
        turns.append({kind: windows_per_second(kind, options.steps) for kind in kinds})
        print({kind: round(speed) for kind, speed in turns[-1].items()}, "windows/s", flush=True)
    for kind, name in (("without", "determinism off"), ("fit", "stock Keras fit")):
        ratios = [turn["with"] / turn[kind] for turn in turns]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"pipeline over {name}: {statistics.median(ratios):.2f}x, {spread}")


if __name__ == "__main__":
    main()
