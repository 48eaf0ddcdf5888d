"""Training steps of one kind, in a process of its own, or the machine's matrix products beside them.

    python -m benchmarks.steps KIND STEPS [EPOCHS DEVICE]

Kinds: `pipeline`, `mixed_bfloat16` (the pipeline with that precision), `as it comes` (the pipeline's step
in a TensorFlow that is left as it comes), `fit` (stock Keras), `torch` (nn.LSTM, if it is installed),
`products of the batch`, `products of microbatches`. All train the article's model on made-up windows, with
the same batch and optimizer. With EPOCHS `fit` and `torch` train as many, on DEVICE (gpu or cpu), and print a
line after each. Prints one line of JSON at the end.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stages.text.windows import Windows

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

BATCH, MAXLEN, SIZE, UNITS, RATE, MICROBATCHES = 1024, 40, 56, 128, 0.01, 8
# of one window, multiply and add counted apart: (x_t, h) by (W; U) forward, two such products back
ARTICLE_FLOPS = MAXLEN * 2 * 4 * UNITS * ((SIZE + UNITS) + UNITS + (SIZE + UNITS))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def timed(run: Callable[[], object]) -> float:
    """Seconds of a second run; the first one compiles."""
    run()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def epochs_of(epoch: Callable[[], object], windows: int, epochs: int | None) -> dict[str, float]:
    """The speed of the second epoch; with `epochs` of each but the first, printed as the train stage does."""
    if epochs is None:
        return {"windows_per_second": windows / timed(epoch)}
    speeds = []
    for number in range(epochs):
        began = time.perf_counter()
        epoch()
        speeds.append(windows / (time.perf_counter() - began))
        print(f"epoch {number}: {speeds[-1]:,.0f} windows/s", flush=True)
    return {"windows_per_second": statistics.median(speeds[1:])}


def made_up(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of so many steps, and the character after each."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, SIZE, (BATCH * steps, MAXLEN)).astype("u1")
    return x, rng.integers(0, SIZE, BATCH * steps).astype("u1")


def as_windows(x: np.ndarray, y: np.ndarray, size: int = SIZE) -> "Windows":
    """The same as the pipeline takes them, without a validation split and a test split."""
    from stages.text.windows import Windows

    return Windows(x, y, x[:0], y[:0], x[:0], y[:0], "".join(map(chr, range(40, 40 + size))))


def pipeline(precision: str, deterministic: bool, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """An epoch of the pipeline's, and the share of it that is spent outside the compiled step."""
    if deterministic:
        from stages.training.device import set_up_tensorflow

        set_up_tensorflow("cpu")
    from stages.common.params import read_params
    from stages.training.host_loop import HostLoop
    from stages.training.trainer import Trainer

    params = read_params()
    train = params.train.model_copy(update={"precision": precision, "preview": 0})
    trainer = Trainer(params.model_copy(update={"train": train}), as_windows(x, y), "cpu")
    assert isinstance(trainer.loop, HostLoop)
    step, inside = trainer.loop.step, [0.0]

    def clocked(*batch):
        began = time.perf_counter()
        loss = float(step(*batch))
        inside[0] += time.perf_counter() - began
        return loss

    def epoch() -> None:
        inside[0] = 0.0
        trainer.epoch(trainer.next_epoch)

    trainer.loop.step = clocked
    seconds = timed(epoch)
    return {"windows_per_second": len(x) / seconds, "outside_the_step": 1 - inside[0] / seconds}


def fit(x: np.ndarray, y: np.ndarray, epochs: int | None) -> dict[str, float]:
    """Keras's own `fit` on one-hot tensors, as the article calls it."""
    import keras

    import stages.training.device  # noqa: F401, it loads what TensorFlow alone may miss of a GPU

    layers = [keras.Input((MAXLEN, SIZE)), keras.layers.LSTM(UNITS), keras.layers.Dense(SIZE, "softmax")]
    model = keras.Sequential(layers)
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(RATE))
    hot, targets = np.eye(SIZE, dtype=bool)[x], np.eye(SIZE, dtype=bool)[y]
    return epochs_of(lambda: model.fit(hot, targets, batch_size=BATCH, verbose=0), len(x), epochs)


def torch_lstm(x: np.ndarray, y: np.ndarray, epochs: int | None) -> dict[str, float]:
    """PyTorch's nn.LSTM with the same loss and Keras's settings of RMSprop, in float32.

    On a GPU the windows lie there, and the loss is fetched once an epoch.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lstm, dense = nn.LSTM(SIZE, UNITS, batch_first=True).to(device), nn.Linear(UNITS, SIZE).to(device)
    weights = [*lstm.parameters(), *dense.parameters()]
    optimizer = torch.optim.RMSprop(weights, lr=RATE, alpha=0.9, eps=1e-7)
    rows, targets = (torch.from_numpy(array.astype("i8")).to(device) for array in (x, y))

    def epoch() -> None:
        order, total = torch.randperm(len(rows), device=device), torch.zeros((), device=device)
        for start in range(0, len(rows), BATCH):
            chosen = order[start : start + BATCH]
            hot = nn.functional.one_hot(rows[chosen], SIZE).float()
            _, (h, _) = lstm(hot)
            loss = nn.functional.cross_entropy(dense(h[0]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()  # waits for the GPU

    return epochs_of(epoch, len(x), epochs)


def products(rows: int, side_by_side: int, steps: int) -> dict[str, float]:
    """FLOP/s of the article's three matrix products in float32, each `rows` windows high.

    side_by_side of them are under way at a time, each on an equal part of the cores.
    """
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(side_by_side)
    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // side_by_side))
    repeats = 16  # with operands of their own, or TensorFlow would multiply once

    def operands(*shape: int) -> list[tf.Tensor]:
        return [tf.random.normal(shape) for _ in range(repeats)]

    shapes = ((rows, SIZE + UNITS), (SIZE + UNITS, 4 * UNITS), (rows, 4 * UNITS), (4 * UNITS, UNITS))
    everything = [operands(*shape) for shape in shapes]

    @tf.function(autograph=False)
    def program(inputs, weights, dz, back):
        ends = []
        for first in range(side_by_side):
            done: list[tf.Tensor] = []
            for k in range(first, repeats, side_by_side):
                pairs = (
                    (inputs[k], weights[k], False),
                    (dz[k], back[k], False),
                    (inputs[k], dz[k], True),
                )
                for left, right, transposed in pairs:
                    with tf.control_dependencies(done[-1:]):
                        done.append(tf.matmul(left, right, transpose_a=transposed)[:1, :1])
            ends.append(done)
        return ends

    calls = max(1, steps * BATCH * MAXLEN // (repeats * rows) // 4)

    def run() -> None:
        for _ in range(calls):
            program(*everything)

    flops = calls * repeats * rows * ARTICLE_FLOPS / MAXLEN
    return {"flops_per_second": flops / timed(run)}


def require_gpu(kind: str) -> None:
    """End with one line where the kind's framework sees no GPU, and would train on the CPU."""
    if kind == "torch":
        import torch

        there = torch.cuda.is_available()
    else:
        from stages.training.device import GPUS

        there = bool(GPUS)
    if not there:
        sys.exit(f"error: {'PyTorch' if kind == 'torch' else 'TensorFlow'} sees no GPU")


def main(kind: str, steps: int, epochs: int | None = None, device: str = "cpu") -> None:
    """Measure one kind and print the result."""
    if device == "gpu":
        require_gpu(kind)
    x, y = made_up(steps)
    if kind == "products of the batch":
        result = products(BATCH, 1, steps)
    elif kind == "products of microbatches":
        result = products(BATCH // MICROBATCHES, cores(), steps)
    elif kind == "fit":
        result = fit(x, y, epochs)
    elif kind == "torch":
        result = torch_lstm(x, y, epochs)
    else:
        precision = kind if kind == "mixed_bfloat16" else "float32"
        result = pipeline(precision, kind != "as it comes", x, y)
    print(json.dumps(result))


if __name__ == "__main__":
    kind, steps, *more = sys.argv[1:]
    main(kind, int(steps), int(more[0]) if more else None, more[1] if more else "cpu")
