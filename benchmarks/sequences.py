"""Training steps of models that predict at every position, in a process of its own.

    python -m benchmarks.sequences KIND UNITS STEPS [SECTION.KEY=VALUE ...]

Kinds: `float32` and `mixed_bfloat16` (the pipeline), `autodiff` (its step with Keras's layers and autodiff
in place of the fused step, float32), `torch` (PyTorch's nn.LSTM in float32), `products` (the matrix products
of the float32 step alone, on its shapes). All train one LSTM layer on batches of 64 windows of 40 characters,
65 of them distinct, with Adam and clipping. With `model.cell=gru` and the like the first three train another
model. Prints one line of JSON.
"""

import json
import os
import sys

import numpy as np
import yaml

from benchmarks.steps import as_windows, cores, timed
from tests.support import changed_params

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

BATCH, MAXLEN, SIZE, RATE, MICROBATCHES = 64, 40, 65, 0.002, 2


def pipeline(kind: str, units: int, x: np.ndarray, y: np.ndarray, others: dict[str, object]) -> float:
    """Seconds of an epoch of the pipeline's."""
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")
    from stages.common.params import Params
    from stages.model.microbatches import over_microbatches
    from stages.training.steps import keras_microbatch, train_step
    from stages.training.trainer import Trainer

    changed = {
        "train__precision": "float32" if kind == "autodiff" else kind,
        "train__preview": 0,
        "train__targets": "all",
        "train__batch_size": BATCH,
        "train__optimizer": "adam",
        "train__learning_rate": RATE,
        "train__clip_norm": 1.0,
        "train__microbatches": MICROBATCHES,
        "model__units": units,
    }
    params = Params.model_validate(changed_params(**(changed | others)))
    trainer = Trainer(params, as_windows(x, y, SIZE), "cpu")
    if kind == "autodiff":
        gradients = over_microbatches(keras_microbatch(trainer.model), MICROBATCHES)
        trainer.loop.step = train_step(gradients, trainer.model, BATCH, compile_update=True)  # type: ignore[union-attr]
    return timed(lambda: trainer.epoch(trainer.next_epoch))


def torch_lstm(units: int, x: np.ndarray, y: np.ndarray) -> float:
    """Seconds of an epoch of PyTorch's."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    lstm, dense = nn.LSTM(SIZE, units, batch_first=True), nn.Linear(units, SIZE)
    weights = [*lstm.parameters(), *dense.parameters()]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    text = torch.from_numpy(np.concatenate([x, y[:, None]], axis=1).astype("i8"))

    def epoch() -> None:
        for start in range(0, len(text), BATCH):
            rows = text[start : start + BATCH]
            outputs, _ = lstm(nn.functional.one_hot(rows[:, :-1], SIZE).float())
            loss = nn.functional.cross_entropy(dense(outputs).flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            loss.item()

    return timed(epoch)


def products(units: int, steps: int) -> float:
    """Seconds of the step's products, those of each microbatch on a core of its own."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(cores())
    tf.config.threading.set_intra_op_parallelism_threads(1)
    rows = BATCH // MICROBATCHES
    shapes = {"u": (units, 4 * units), "back": (4 * units, units), "dense": (units, SIZE)}
    weights = {name: tf.random.normal(shape) for name, shape in shapes.items()}

    @tf.function(autograph=False)
    def step(weights):
        ends = []
        for microbatch in range(MICROBATCHES):
            h = tf.zeros((rows, units)) + microbatch
            hs, zs = [], []
            for _ in range(MAXLEN):
                zs.append(tf.matmul(h, weights["u"]))
                h = zs[-1][:, :units]
                hs.append(h)
            h, z = tf.concat(hs, axis=0), tf.concat(zs, axis=0)
            logits = tf.matmul(h, weights["dense"])
            ends += [
                tf.matmul(h, logits, transpose_a=True),
                tf.matmul(logits, weights["dense"], transpose_b=True),
            ]
            ends.append(tf.matmul(h, z, transpose_a=True))
            back = zs[-1]
            for _ in range(MAXLEN):
                back = tf.tile(tf.matmul(back, weights["back"]), [1, 4])
            ends.append(back)
        return [each[:1, :1] for each in ends]

    def epoch() -> None:
        for _ in range(steps):
            step(weights)[0].numpy()

    return timed(epoch)


def main(kind: str, units: int, steps: int, others: dict[str, object]) -> None:
    """Measure one kind and print characters a second."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, SIZE, (BATCH * steps, MAXLEN + 1)).astype("u1")
    x, y = text[:, :-1], text[:, -1]
    if kind == "products":
        seconds = products(units, steps)
    elif kind == "torch":
        seconds = torch_lstm(units, x, y)
    else:
        seconds = pipeline(kind, units, x, y, others)
    print(json.dumps({"characters_per_second": x.size / seconds}))


if __name__ == "__main__":
    pairs = (each.split("=") for each in sys.argv[4:])
    main(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        {name.replace(".", "__"): yaml.safe_load(value) for name, value in pairs},
    )
