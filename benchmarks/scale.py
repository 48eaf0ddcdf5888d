"""Training from `data/windows.npz` of any size: what opening it, its order and its windows cost.

    python -m benchmarks.scale STEPS     (in a folder with data/windows.npz)

Prints one line of JSON: seconds to open and to make one epoch's order, seconds of STEPS batches drawn at
random and of the training steps on them, the file's and this process's own memory (0 where the system
does not tell).
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np


def own_megabytes() -> float:
    """Memory of this process that is not a view of a file, in MB."""
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def main(steps: int) -> None:
    """Open, order, draw, train; print the clock."""
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")
    from stages.common.params import read_params
    from stages.common.paths import WINDOWS_FILE
    from stages.common.randomness import keyed_generator
    from stages.text.windows_file import load_windows
    from stages.training.host_loop import HostLoop
    from stages.training.trainer import Trainer

    params = read_params()
    before = own_megabytes()
    began = time.perf_counter()
    windows = load_windows()
    clock = {"open": time.perf_counter() - began}
    trainer = Trainer(params, windows, "cpu")
    assert isinstance(trainer.loop, HostLoop)
    own = own_megabytes() - before

    began = time.perf_counter()
    order = np.arange(len(windows.x), dtype=np.min_scalar_type(len(windows.x)))
    keyed_generator(0, "order of windows", 0).shuffle(order)
    clock["order"] = time.perf_counter() - began

    clock |= {"draw": 0.0, "train": 0.0}
    size = trainer.plan.batch_size
    for number in range(steps + 2):
        chosen = np.take(order, range(number * size, (number + 1) * size), mode="wrap")
        began = time.perf_counter()
        batch = trainer.loop.batch(chosen)
        drawn = time.perf_counter()
        float(trainer.loop.step(*batch, np.zeros(2, np.int32)))
        if number >= 2:  # the first compiles
            clock["draw"] += drawn - began
            clock["train"] += time.perf_counter() - drawn
    print(
        json.dumps(
            {
                **clock,
                "windows": len(windows.x),
                "drawn": steps * size,
                "file_megabytes": WINDOWS_FILE.stat().st_size / 1e6,
                "own_megabytes": own,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
