"""The trainer: the model, its optimizer, and one epoch of training."""

import contextlib
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.common.errors import StageError
from stages.common.history import Metrics
from stages.common.params import Params
from stages.common.randomness import keyed_generator
from stages.distributed.strategy import AllGather, Distribution, mirrored_step
from stages.model.architecture import build_model, compile_model, optimizer_state, set_optimizer_state
from stages.model.export import save_model
from stages.model.fused_lstm import applies_to, fused_gradients
from stages.model.generator import Generator, uniform_draws
from stages.text.vocabulary import decode, vocabulary_sha256
from stages.text.windows import Windows
from stages.training.checkpoints import Checkpoint
from stages.training.schedule import is_constant, learning_rate_at
from stages.training.steps import (
    TrainStep,
    keras_gradients,
    keras_microbatch,
    train_step,
    validation_step,
)

PREVIEW_TEMPERATURE = 0.5
VALIDATION_ROWS = 256  # validation windows in a microbatch


class Trainer:
    """The model, its optimizer and the windows that it learns from.

    Attributes:
        model: the Keras model.
        optimizer: its optimizer.
        windows: what it is trained on.
        next_epoch: the one epoch that the present state can be trained on.
        steps_begun: optimizer steps that this object has begun.
        steps_done: optimizer steps that this object has done.
    """

    def __init__(
        self, params: Params, windows: Windows, device: str, distribution: Distribution | None = None
    ) -> None:
        """Build the model and compile its steps.

        Args:
            params: all parameters.
            windows: what to train on.
            device: cpu or gpu.
            distribution: the processes or devices that train together; None for one.

        Raises:
            StageError: the training step of this model and device does not have `train.precision`.
        """
        train = params.train
        self.steps_begun = self.steps_done = self.next_epoch = 0
        self.train, self.seed, self.windows = train, train.seed, windows
        self.vocabulary = vocabulary_sha256(windows.vocabulary)
        self.model_arguments = {
            "maxlen": windows.maxlen,
            "vocab_size": len(windows.vocabulary),
            **params.model.model_dump(),
        }
        keras.utils.set_random_seed(train.seed)  # of the initial weights, Keras's only random draw
        distribution = distribution or Distribution()
        # on CPUs each worker has its own model, on GPUs the strategy keeps a copy on each device
        mirrored = device == "gpu" and distribution.strategy is not None
        scope = contextlib.nullcontext()
        if mirrored and distribution.strategy:
            scope = distribution.strategy.scope()
        with scope:
            self.model, self.optimizer = self._build(return_sequences=train.targets == "all")

        microbatches = train.microbatches if device == "cpu" else 1
        parts = train.microbatches if device == "cpu" else distribution.replicas
        # not longer than the text needs; a multiple of the parts, filled up with rows of weight 0
        self.batch_size = min(train.batch_size, len(windows.x))
        self.rows = math.ceil(self.batch_size / parts) * parts
        own = distribution.own(parts)
        self.own_rows = slice(own.start * self.rows // parts, own.stop * self.rows // parts)
        fused = device == "cpu" and applies_to(self.model)
        if train.precision != "float32" and not fused:
            raise StageError(
                f"train.precision: got {train.precision!r}; takes float32 here: only the fused step of the "
                "article's model on a CPU multiplies in bfloat16 (one lstm layer without dropout or "
                "embedding, train.targets: last)"
            )
        self._step: TrainStep
        if mirrored:
            self._step = mirrored_step(keras_microbatch(self.model), self.model, distribution, self.rows)
        else:
            exchange = AllGather(distribution, microbatches) if distribution.workers > 1 else None
            if fused:
                dtype = tf.bfloat16 if train.precision == "mixed_bfloat16" else tf.float32
                gradients = fused_gradients(self.model, microbatches, dtype, exchange)
            else:
                gradients = keras_gradients(self.model, microbatches, exchange)
            own_rows = self.own_rows.stop - self.own_rows.start
            self._step = train_step(gradients, self.model, self.rows, own_rows)
        per_microbatch = min(VALIDATION_ROWS, math.ceil(len(windows.x_val) / microbatches))
        self.validation_rows = per_microbatch * microbatches
        self._validation_step = validation_step(self.model, self.validation_rows, microbatches)
        self._preview = Generator(self.model, [PREVIEW_TEMPERATURE], train.preview) if train.preview else None

    def _build(self, return_sequences: bool) -> tuple[keras.Sequential, keras.optimizers.Optimizer]:
        """Build a model of this run and its optimizer."""
        model = build_model(**self.model_arguments, return_sequences=return_sequences)
        train = self.train
        return model, compile_model(model, train.learning_rate, train.optimizer, train.clip_norm)

    def epoch(self, epoch: int) -> Metrics:
        """Train on every window once, in this epoch's own order.

        Args:
            epoch: counted from 0; has to be `next_epoch`, so that no caller can skip or repeat one.

        Returns:
            `loss`, the mean cross-entropy in nats over the windows while the weights were changing, as
            Keras reports it, with `train.targets: all` also over their positions; with a validation split
            `val_loss`, that of the character after each validation window once the epoch is over, and
            with `train.targets: all` `val_all_loss`, that over its positions, too; each also in bits,
            `bits_per_char`, `val_bits_per_char` and `val_all_bits_per_char`.

        Raises:
            StageError: a loss or a weight is not finite.
            ValueError: the present state is not that before this epoch.
        """
        if epoch != self.next_epoch:
            raise ValueError(f"the state is that before epoch {self.next_epoch}, not {epoch}")
        windows, train, size = self.windows, self.train, self.batch_size
        steps = math.ceil(len(windows.x) / size)
        changing = not is_constant(train)
        order = np.arange(len(windows.x), dtype=np.min_scalar_type(len(windows.x)))
        keyed_generator(self.seed, "order of windows", epoch).shuffle(order)
        dropout_keys = keyed_generator(self.seed, "dropout", epoch).integers(
            2**31, size=(steps, 2), dtype=np.int32
        )
        total = 0.0
        with tqdm(total=len(order), desc=f"epoch {epoch}", unit=" windows", leave=False, disable=None) as bar:
            for step, key in enumerate(dropout_keys):
                chosen = order[step * size : (step + 1) * size]
                if changing:
                    self.optimizer.learning_rate = learning_rate_at(train, epoch * steps + step, steps)
                self.steps_begun += 1
                loss = float(self._step(*self._batch(chosen), key))
                self.steps_done += 1
                require_finite(loss, f"epoch {epoch}, step {step} of {steps}")
                total += loss * len(chosen)
                bar.update(len(chosen))
                bar.set_postfix(loss=f"{total / (step * size + len(chosen)):.4f}", refresh=False)
        self.next_epoch += 1
        loss = total / len(order)
        metrics = {"loss": loss, "bits_per_char": loss / math.log(2)}
        if len(windows.x_val):
            metrics |= self.validation_metrics()
            require_finite(metrics["val_loss"], f"the validation of epoch {epoch}")
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            require_finite(math.nan, f"the step after epoch {epoch}")  # the last update made it so
        return metrics

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Collect this process's rows of a batch, x and y, and the weights of all rows."""
        own, at = chosen[self.own_rows], self.own_rows
        x, y, _ = padded(self.windows.x[own], self.windows.y[own], at.stop - at.start)
        return x, y, (np.arange(self.rows) < len(chosen)).astype(np.float32)

    def validation_metrics(self) -> Metrics:
        """Compute the metrics of the validation windows, as `epoch` returns them."""
        x, y, size = self.windows.x_val, self.windows.y_val, self.validation_rows
        sums = [
            self._validation_step(*padded(x[at : at + size], y[at : at + size], size)).numpy().tolist()
            for at in range(0, len(x), size)
        ]
        metrics: Metrics = {}
        for name, of_batches in zip(("val_", "val_all_"), zip(*sums, strict=True), strict=False):
            loss = sum(of_batches) / len(x)
            metrics |= {f"{name}loss": loss, f"{name}bits_per_char": loss / math.log(2)}
        return metrics

    def checkpoint(self, fingerprint: str, metrics: Metrics) -> Checkpoint:
        """Copy the present state, after the last epoch.

        Args:
            fingerprint: of the run.
            metrics: of that epoch.

        Returns:
            The checkpoint.
        """
        weights, optimizer = self.model.get_weights(), optimizer_state(self.optimizer)
        epoch = self.next_epoch - 1
        return Checkpoint(
            epoch, fingerprint, self.model_arguments, self.vocabulary, metrics, weights, optimizer
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        self.model.set_weights(checkpoint.weights)
        set_optimizer_state(self.optimizer, checkpoint.optimizer)
        self.next_epoch = checkpoint.epoch + 1

    def preview(self, epoch: int) -> str:
        """Generate a few characters for the terminal, keyed by the epoch."""
        if self._preview is None:
            return ""
        draws = uniform_draws(self.seed, epoch, [PREVIEW_TEMPERATURE], self._preview.length)
        (indices,) = self._preview(self.windows.x[0], draws)
        return decode(indices, self.windows.vocabulary)

    def save(self, path: Path) -> None:
        """Save the model and its optimizer to a `.keras` file that gives (batch, vocab_size)."""
        model, optimizer = self._build(return_sequences=False)
        model.set_weights(self.model.get_weights())
        set_optimizer_state(optimizer, optimizer_state(self.optimizer))
        save_model(model, path, self.vocabulary)


def require_finite(loss: float, where: str) -> None:
    """Check a loss.

    Args:
        loss: the loss.
        where: the epoch and step that it is of.

    Raises:
        StageError: the loss is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise StageError(
            f"the loss is {loss} in {where}; lower train.learning_rate, set train.clip_norm (1, say; it has "
            "to be a number that float32 holds), or add train.warmup_epochs. Finished epochs are kept"
        )


def padded(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill up a batch to the size that a compiled step takes.

    Args:
        x: (n, maxlen) indices.
        y: (n,) indices.
        size: rows, at least n.

    Returns:
        x (size, maxlen) and y (size,), int32, and weights (size,) float32, 0 for the rows that only pad.
    """
    n = len(x)
    rows = np.zeros((size, x.shape[1]), np.int32)
    targets = np.zeros(size, np.int32)
    weight = np.zeros(size, np.float32)
    rows[:n], targets[:n], weight[:n] = x, y, 1
    return rows, targets, weight
