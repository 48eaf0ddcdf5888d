"""How training grows with workers: what one and two take here, and an estimate for up to 64.

    python -m benchmarks --parts workers

W workers, M = max(8, W) microbatches, P parameters; c seconds that one worker takes to compute a step, f
seconds of a step that more workers do not share (the optimizer, the sum, TensorFlow's part of the
exchange); a network of b bytes/s with l seconds of latency:

    CPUs:  T(W) = c ceil(M / W) / M + f + l (W - 1) + 4 (P + 1) (M - M / W) / b
    GPUs:  T(W) = c / W + f + 2 l (W - 1) + 8 P (W - 1) / W / b

since on CPUs every worker gets the gradients of all microbatches, on GPUs a ring sums them up.

With one microbatch per worker the first is least at about W = sqrt(c b / 4 P).
"""

import math
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import middle, ratio, table
from benchmarks.steps import BATCH, SIZE, UNITS
from tests.support import ROOT, free_ports, tf_config

PARAMETERS = 4 * UNITS * (SIZE + UNITS + 1) + (UNITS + 1) * SIZE
SIDES: dict[str, dict[str, Any]] = {
    f"{who}, batches of {batch:,}": {**settings, "train__batch_size": batch}
    for batch in (BATCH, 4 * BATCH)
    for who, settings in {
        "one process on one core": {"train__cores": 1},
        "two workers on a core each": {"train__cores": 2, "train__workers": 2},
        "one process on two cores": {"train__cores": 2},
    }.items()
}
WORKERS = (1, 2, 4, 8, 16, 32, 64)
NETWORKS = {"1 Gbit/s": (118e6, 2e-4), "10 Gbit/s": (1.18e9, 5e-5)}  # bytes/s, s; assumed
GPU_STEP, GPU_FIXED, GPU_NETWORK = 0.01, 0.002, (1e11, 1e-5)  # s, s, (bytes/s, s); assumed


def on_cpus(workers: int, compute: float, fixed: float, network: tuple[float, float]) -> float:
    """Seconds of a step, as above."""
    if workers == 1:
        return compute
    bandwidth, latency = network
    microbatches = max(8, workers)
    received = 4 * (PARAMETERS + 1) * (microbatches - microbatches / workers)
    shared = compute * math.ceil(microbatches / workers) / microbatches
    return shared + fixed + latency * (workers - 1) + received / bandwidth


def on_gpus(workers: int, compute: float, fixed: float, network: tuple[float, float]) -> float:
    """Seconds of a step, as above."""
    if workers == 1:
        return compute
    bandwidth, latency = network
    received = 8 * PARAMETERS * (workers - 1) / workers
    return compute / workers + fixed + 2 * latency * (workers - 1) + received / bandwidth


def exchange() -> float:
    """Seconds in which two processes on loopback gather the eight microbatches of a step, no more."""
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        command = [sys.executable, "-m", "benchmarks.workers", *addresses]
        both = [
            subprocess.Popen([*command, str(n)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for n in (0, 1)
        ]
        return max(float(process.communicate()[0]) for process in both)


def one_of_two(addresses: list[str], index: int) -> None:
    """One side of `exchange`; prints seconds a step."""
    os.environ["TF_CONFIG"] = tf_config(addresses, index)
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu", cores=1)
    import tensorflow as tf

    from stages.distributed.strategy import AllGather, distribute

    gather = AllGather(distribute("cpu", 2, index), 8)

    @tf.function(autograph=False)
    def step(loss, gradient):
        all_parts = gather([(loss, [gradient])] * len(gather.own))
        return tf.add_n([gradient for _, (gradient,) in all_parts])

    arguments = tf.constant(1.0), tf.ones(PARAMETERS)
    step(*arguments)
    began = time.perf_counter()
    for _ in range(100):
        step(*arguments)
    print((time.perf_counter() - began) / 100)


def report(steps: dict[str, list[float]], exchanges: list[float]) -> None:
    """Print the tables: seconds of a step of each side and turn, and of the exchange alone."""
    rows = []
    for name, seconds in steps.items():
        batch = name.split(", ")[1]
        alone = steps[f"one process on one core, {batch}"]
        rows.append((name, middle([1e3 * each for each in seconds]), ratio(alone, seconds)))
    table("Workers", ("", "a step, ms", "faster than one core by (of the turns)"), rows)
    one, two, host = (statistics.median(steps[name]) for name in list(SIDES)[:3])
    fixed = max(0.0, two - one / 2)
    print(f"the exchange alone, two processes on loopback: {middle([1e3 * e for e in exchanges])} ms")
    print(f"c = {1e3 * host:.0f} ms (one process on two cores), f = {1e3 * fixed:.1f} ms")
    estimated: list[tuple[str, ...]] = []
    for workers in WORKERS:
        cells: list[str] = [str(workers)]
        for compute in (host, 4 * host):
            for network in NETWORKS.values():
                cells.append(f"{compute / on_cpus(workers, compute, fixed, network):.1f}")
        for compute in (GPU_STEP, 4 * GPU_STEP):
            cells.append(f"{compute / on_gpus(workers, compute, GPU_FIXED, GPU_NETWORK):.1f}")
        estimated.append(tuple(cells))
    batches = [f"batch {batch:,}, {network}" for batch in (BATCH, 4 * BATCH) for network in NETWORKS]
    gpus = [f"GPUs, batch {batch:,}" for batch in (BATCH, 4 * BATCH)]
    table("Estimated: times as fast as one worker", ("workers", *batches, *gpus), estimated)


if __name__ == "__main__":
    one_of_two(sys.argv[1:3], int(sys.argv[3]))
