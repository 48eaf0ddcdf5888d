"""Compares the loop of steps of a GPU with single steps, both on the CPU and in turn.

    python -m benchmarks.device_loop [--turns N] [--steps N]

It shows what the loop itself costs: both sides compute the article's model through Keras's layers, on
made-up windows. A training on a CPU takes other, fused steps.
"""

import argparse
import time

from benchmarks.measure import machine, middle, ratio, table
from benchmarks.steps import BATCH, as_windows, made_up
from stages.common.cli import Parser, whole_number
from stages.common.params import read_params
from stages.training.device import set_up_tensorflow  # before whatever imports TensorFlow


def main() -> None:
    """Train the same epochs both ways."""
    parser = Parser(prog="python -m benchmarks.device_loop", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--turns", type=whole_number(1, 1000), default=5, help="epochs of each side (5), after one"
    )
    parser.add_argument("--steps", type=whole_number(1, 100_000), default=196, help="steps in an epoch (196)")
    options = parser.parse_args()
    set_up_tensorflow("cpu")
    from stages.model.microbatches import over_microbatches
    from stages.training.steps import keras_microbatch, train_step
    from stages.training.trainer import Trainer

    print(machine())
    windows = as_windows(*made_up(options.steps))
    params = read_params()
    changes = {"preview": 0, "batch_size": BATCH}
    params = params.model_copy(update={"train": params.train.model_copy(update=changes)})
    single, loop = Trainer(params, windows, "cpu"), Trainer(params, windows, "gpu")
    gradients = over_microbatches(keras_microbatch(single.model), 1)
    single.loop.step = train_step(gradients, single.model, BATCH)  # type: ignore[union-attr]
    seconds: dict[str, list[float]] = {"single steps": [], "loop": []}
    for turn in range(options.turns + 1):
        losses = set()
        for name, trainer in zip(seconds, (single, loop), strict=True):
            began = time.perf_counter()
            losses.add(trainer.epoch(turn)["loss"])
            seconds[name].append(time.perf_counter() - began)
        assert len(losses) == 1, "the two sides learn different things"
        print(turn, {name: round(times[-1], 1) for name, times in seconds.items()}, flush=True)
    ours, theirs = ([len(windows.x) / s for s in seconds[name][1:]] for name in ("loop", "single steps"))
    table(
        f"{options.steps} steps of {BATCH:,} windows ({options.turns} turns)",
        ("", "windows/s", "faster than single steps by (of the turns)"),
        [("single steps", middle(theirs), ""), ("loop", middle(ours), ratio(ours, theirs))],
    )


if __name__ == "__main__":
    main()
