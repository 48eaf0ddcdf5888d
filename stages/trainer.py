"""Training an epoch at a time: the state, one epoch of it, and snapshots of it."""

import contextlib
import hashlib
import json
import math
import platform
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.distribute import AllGather, Spread, mirrored_step
from stages.errors import StageError
from stages.files import sha256_of
from stages.generator import Generator, uniform_draws
from stages.lstm import (
    Step,
    applies_to,
    fused_gradients,
    optimizer_step,
    stock_gradients,
    stock_part,
    sum_of_losses,
)
from stages.model import build_model, compile_model, optimizer_state, save_model, set_optimizer_state
from stages.params import Params, Train
from stages.randomness import keyed_generator
from stages.snapshots import Snapshot
from stages.windows import Windows

PREVIEW_TEMPERATURE = 0.5
VALIDATION_ROWS = 256  # held-out windows in a stream at once
WITHOUT_INFLUENCE = {
    *("epochs", "device", "cores", "workers", "worker_timeout", "keep", "patience", "preview"),
}


def what_epochs_depend_on(params: Params, device: str, windows_sha256: str) -> dict[str, Any]:
    """Everything that an epoch's numbers depend on, and nothing else, as a tree for JSON.

    The number of epochs is not among it, so a run can be extended; nor are cores and workers, nor what
    a schedule takes where there is none.
    """
    of_schedule = {"decay", "decay_epochs"} if params.train.schedule == "constant" else set()
    return {
        "windows": windows_sha256,
        "model": params.model.model_dump(),
        "train": params.train.model_dump(exclude=WITHOUT_INFLUENCE | of_schedule),
        "device": device,
        "machine": platform.machine(),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
        "modules": {name: sha256_of(path) for name, path in own_modules(Path(__file__)).items()},
    }


def fingerprint(depends_on: dict[str, Any]) -> str:
    """A hash of what `what_epochs_depend_on` gives."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def own_modules(entry: Path) -> dict[str, Path]:
    """The project's modules that `entry` imports, directly or through others, and itself, by name."""
    root = Path(__file__).parent.parent
    finder = ModuleFinder(path=[str(root)])
    finder.run_script(str(entry))
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
    return {name: Path(file) for name, file in sorted(files.items()) if file}


class Trainer:
    """The model, its optimizer and the windows it learns from.

    begun and done: steps of the optimizer that this object has begun and has done, from 0.
    Raises StageError for a precision that the device's path does not have.
    """

    def __init__(
        self, params: Params, windows: Windows, device: str, spread: Spread | None = None
    ) -> None:
        train = params.train
        self.begun = self.done = 0
        self.train, self.seed, self.windows = train, train.seed, windows
        self.about_model = {
            "maxlen": windows.maxlen,
            "charset": len(windows.charset),
            **params.model.model_dump(),
        }
        keras.utils.set_random_seed(train.seed)  # of the initial weights, the only draw of Keras's
        spread = spread or Spread()
        # on CPUs each worker has a model of its own, on GPUs the strategy keeps one on each
        mirrored = device == "gpu" and spread.strategy is not None
        with spread.strategy.scope() if mirrored and spread.strategy else contextlib.nullcontext():
            self.model, self.optimizer = self._built(every_position=train.targets == "all")

        fused = device == "cpu" and applies_to(self.model)
        streams = train.streams if device == "cpu" else 1
        parts = train.streams if device == "cpu" else spread.replicas
        # never longer than the text asks for; whole parts, filled up with rows of weight 0
        self.batch_size = min(train.batch_size, len(windows.x))
        self.rows = math.ceil(self.batch_size / parts) * parts
        own = spread.own(parts)
        self.own_rows = slice(own.start * self.rows // parts, own.stop * self.rows // parts)
        if train.precision != "float32" and not fused:
            raise StageError(
                f"train.precision: got {train.precision!r}; takes float32 here: what multiplies in "
                "bfloat16 is the fast path of the article's model on a CPU (one lstm layer without "
                "dropout or embedding, train.targets: last)"
            )
        self._step: Step
        if mirrored:
            self._step = mirrored_step(stock_part(self.model), self.model, spread, self.rows)
        else:
            exchange = AllGather(spread, streams) if spread.workers > 1 else None
            if fused:
                products = tf.bfloat16 if train.precision == "mixed_bfloat16" else tf.float32
                gradients = fused_gradients(self.model, streams, products, exchange)
            else:
                gradients = stock_gradients(self.model, streams, exchange)
            own_rows = self.own_rows.stop - self.own_rows.start
            self._step = optimizer_step(gradients, self.model, self.rows, own_rows)
        self.validation_rows = min(VALIDATION_ROWS, math.ceil(len(windows.x_val) / streams)) * streams
        self._sum_of_losses = sum_of_losses(self.model, self.validation_rows, streams)
        self._preview = (
            Generator(self.model, [PREVIEW_TEMPERATURE], train.preview) if train.preview else None
        )

    def _built(self, every_position: bool) -> tuple[keras.Sequential, keras.optimizers.Optimizer]:
        """A model of this run and its optimizer."""
        model = build_model(**self.about_model, every_position=every_position)
        train = self.train
        return model, compile_model(model, train.learning_rate, train.optimizer, train.clip_norm)

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train on every window once, in this epoch's own order; returns the epoch's figures.

        `loss` is the mean over windows of the cross-entropy in nats while the weights were changing, as
        Keras reports it, with `targets: all` of all positions in them; `val_loss` that of the character
        after each held-out window, once the epoch is over; `bits_per_char` and `val_bits_per_char` the
        same in bits.
        """
        windows, train, size = self.windows, self.train, self.batch_size
        steps = math.ceil(len(windows.x) / size)
        changing = (train.schedule, train.warmup_epochs) != ("constant", 0)
        order = np.arange(len(windows.x), dtype=np.min_scalar_type(len(windows.x)))
        keyed_generator(self.seed, "order of windows", epoch).shuffle(order)
        dropout_keys = keyed_generator(self.seed, "dropout", epoch).integers(
            2**31, size=(steps, 2), dtype=np.int32
        )
        total = 0.0
        with tqdm(
            total=len(order), desc=f"epoch {epoch}", unit=" windows", leave=False, disable=None
        ) as bar:
            for step, key in enumerate(dropout_keys):
                chosen = order[step * size : (step + 1) * size]
                if changing:
                    self.optimizer.learning_rate = learning_rate_at(train, epoch * steps + step, steps)
                self.begun += 1
                loss = float(self._step(*self._batch(chosen), key))
                self.done += 1
                total += loss * len(chosen)
                bar.update(len(chosen))
                bar.set_postfix(loss=f"{total / (step * size + len(chosen)):.4f}", refresh=False)
        loss = total / len(order)
        figures = {"loss": loss, "bits_per_char": loss / math.log(2)}
        if len(windows.x_val):
            figures["val_loss"] = self.validation_loss()
            figures["val_bits_per_char"] = figures["val_loss"] / math.log(2)
        return figures

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This process's rows of a batch of windows, x and y, and the weights of all rows."""
        own, at = chosen[self.own_rows], self.own_rows
        x, y, _ = padded(self.windows.x[own], self.windows.y[own], at.stop - at.start)
        return x, y, (np.arange(self.rows) < len(chosen)).astype(np.float32)

    def validation_loss(self) -> float:
        """Mean cross-entropy of the held-out windows, in nats."""
        x, y, size = self.windows.x_val, self.windows.y_val, self.validation_rows
        total = sum(
            float(self._sum_of_losses(*padded(x[at : at + size], y[at : at + size], size)))
            for at in range(0, len(x), size)
        )
        return total / len(x)

    def snapshot(self, epoch: int, fingerprint: str, figures: dict[str, float]) -> Snapshot:
        """The present state, after `epoch`."""
        return Snapshot(
            epoch,
            fingerprint,
            self.about_model,
            figures,
            self.model.get_weights(),
            optimizer_state(self.optimizer),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to the state after the snapshot's epoch."""
        self.model.set_weights(snapshot.weights)
        set_optimizer_state(self.optimizer, snapshot.optimizer)

    def preview(self, epoch: int) -> str:
        """A few generated characters, for people who watch the model learn."""
        if self._preview is None:
            return ""
        draws = uniform_draws(self.seed, epoch, [PREVIEW_TEMPERATURE], self._preview.length)
        (indices,) = self._preview(self.windows.x[0], draws)
        return "".join(self.windows.charset[index] for index in indices)

    def save(self, path: Path) -> None:
        """Write the model, with its optimizer, to a `.keras` file: (batch, charset) is what it gives."""
        model, optimizer = self._built(every_position=False)
        model.set_weights(self.model.get_weights())
        set_optimizer_state(optimizer, optimizer_state(self.optimizer))
        save_model(model, path)


def learning_rate_at(train: Train, step: int, steps: int) -> float:
    """The learning rate of a step, both counted from 0, with `steps` of them in an epoch.

    The warm-up's last step has the whole `learning_rate`; the schedule begins after it. Nothing is
    carried from step to step, and the number of epochs has no part in it.
    """
    warmup = train.warmup_epochs * steps
    if step < warmup:
        return train.learning_rate * min(1, (step + 1) / warmup)
    progress = (step - warmup) / (train.decay_epochs * steps)
    if train.schedule == "step":
        return train.learning_rate * train.decay ** math.floor(progress)
    if train.schedule == "cosine":
        fallen = (1 - math.cos(math.pi * min(progress, 1))) / 2
        return train.learning_rate * (1 - fallen * (1 - train.decay))
    return train.learning_rate


def padded(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch filled up to `size` rows, that a compiled function takes; returns x, y and weights."""
    n = len(x)
    rows = np.zeros((size, x.shape[1]), np.int32)
    targets = np.zeros(size, np.int32)
    weight = np.zeros(size, np.float32)
    rows[:n], targets[:n], weight[:n] = x, y, 1
    return rows, targets, weight
