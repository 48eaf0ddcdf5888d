"""The trainer: the model, its optimizer, and one epoch of training."""

import contextlib
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.common.errors import StageError
from stages.common.history import Metrics
from stages.common.params import Params
from stages.common.randomness import keyed_generator
from stages.distributed.strategy import Distribution
from stages.model.architecture import build_model, compile_model, optimizer_state, set_optimizer_state
from stages.model.export import save_model
from stages.model.fused_lstm import applies_to
from stages.model.generator import Generator, uniform_draws
from stages.text.vocabulary import decode, vocabulary_sha256
from stages.text.windows import Windows
from stages.training.checkpoints import Checkpoint
from stages.training.checks import require_finite, require_precision
from stages.training.device_loop import DeviceLoop
from stages.training.host_loop import HostLoop
from stages.training.initial_weights import file_of, initial_weights
from stages.training.schedule import learning_rate_at
from stages.training.steps import keras_microbatch, padded, validation_step

PREVIEW_TEMPERATURE = 0.5
VALIDATION_ROWS = 256  # validation windows in a microbatch


class Trainer:
    """The model, its optimizer and the windows that it learns from.

    Attributes:
        model: the Keras model.
        optimizer: its optimizer.
        windows: what it is trained on.
        next_epoch: the one epoch that the present state can be trained on.
        loop: takes the steps of an epoch.
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
        self.next_epoch = 0
        self.train, self.seed, self.windows = train, train.seed, windows
        self.vocabulary = vocabulary_sha256(windows.vocabulary)
        self.model_arguments = {
            "maxlen": windows.maxlen,
            "vocab_size": len(windows.vocabulary),
            **params.model.model_dump(),
        }
        distribution = distribution or Distribution()
        self.batch_size = min(train.batch_size, len(windows.x))  # not larger than the text needs
        keras.utils.set_random_seed(train.seed)  # of the initial weights, Keras's only random draw
        with tf.device("cpu"):
            host_model = self._build()
        if initial := file_of(train.init_from):
            random = host_model.get_weights()
            host_model.set_weights(initial_weights(initial, params.model, windows.vocabulary, random))
        require_precision(train.precision, device, fused=applies_to(host_model))
        self.model = self._evaluated = self._preview_model = host_model
        self.loop: HostLoop | DeviceLoop
        if device == "gpu":
            self._build_on_gpus(distribution)
            microbatches, validation_rows = 1, max(VALIDATION_ROWS, self.batch_size)
        else:
            self.optimizer = self._compile(host_model)
            microbatches, validation_rows = train.microbatches, VALIDATION_ROWS
            self.loop = HostLoop(
                host_model, microbatches, train.precision, distribution, windows, self.batch_size
            )
        longest = max(len(windows.x_val), len(windows.x_test))
        per_microbatch = min(validation_rows, math.ceil(longest / microbatches))
        self.validation_rows = per_microbatch * microbatches
        self._validation_step = validation_step(self._evaluated, self.validation_rows, microbatches)
        # on the CPU also where a GPU trains: generation is one XLA program, and XLA may not find its own
        # libraries for the GPU
        self._preview = Generator(host_model, [PREVIEW_TEMPERATURE], train.preview) if train.preview else None

    def _build_on_gpus(self, distribution: Distribution) -> None:
        """Build the model that the GPUs train, with the initial weights of the CPU, and its loop."""
        layers: dict[str, Any] = {"use_cudnn": "auto" if self.train.use_cudnn else False}
        if self.train.precision == "mixed_bfloat16":
            layers["dtype"] = "mixed_bfloat16"
        strategy = distribution.strategy  # keeps a copy of the model on each GPU
        with strategy.scope() if strategy else contextlib.nullcontext():
            self.model = self._build(**layers)
            self.optimizer = self._compile(self.model)
        self.model.set_weights(self._preview_model.get_weights())
        # the validation loss is computed in float32
        self._evaluated = self._build(use_cudnn=layers["use_cudnn"]) if "dtype" in layers else self.model
        gradients_of = keras_microbatch(self.model)
        self.loop = DeviceLoop(gradients_of, self.model, distribution, self.windows, self.batch_size)

    def _build(self, **options: Any) -> keras.Sequential:
        """Build a model of this run."""
        options = {"return_sequences": self.train.targets == "all"} | options
        return build_model(**self.model_arguments, **options)

    def _compile(self, model: keras.Sequential) -> keras.optimizers.Optimizer:
        """Compile a model of this run. Returns its optimizer."""
        train = self.train
        return compile_model(model, train.learning_rate, train.optimizer, train.clip_norm)

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
        windows, size = self.windows, self.batch_size
        order, keys, rates = self._plan(epoch)
        total, done = 0.0, 0
        with tqdm(total=len(order), desc=f"epoch {epoch}", unit=" windows", leave=False, disable=None) as bar:
            for losses in self.loop(order, keys, rates):
                for loss in losses:
                    require_finite(loss, f"epoch {epoch}, step {done // size} of {len(keys)}")
                    count = min(size, len(order) - done)
                    total += loss * count
                    done += count
                    bar.update(count)
                bar.set_postfix(loss=f"{total / done:.4f}", refresh=False)
        self.next_epoch += 1
        loss = total / len(order)
        metrics = {"loss": loss, "bits_per_char": loss / math.log(2)}
        if len(windows.x_val):
            metrics |= self.evaluate(windows.x_val, windows.y_val, "val_")
            require_finite(metrics["val_loss"], f"the validation of epoch {epoch}")
        if not all(np.isfinite(array).all() for array in self.model.get_weights()):
            require_finite(math.nan, f"the step after epoch {epoch}")  # the last update made it so
        return metrics

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw an epoch's order of the windows and its steps' (steps, 2) keys; compute the learning rates."""
        n = len(self.windows.x)
        steps = math.ceil(n / self.batch_size)
        order = np.arange(n, dtype=np.min_scalar_type(n))
        keyed_generator(self.seed, "order of windows", epoch).shuffle(order)
        keys = keyed_generator(self.seed, "dropout", epoch).integers(2**31, size=(steps, 2), dtype=np.int32)
        rates = [learning_rate_at(self.train, epoch * steps + step, steps) for step in range(steps)]
        return order, keys, np.array(rates, np.float32)

    def repeats_first_steps(self) -> bool:
        """Take the first steps of the next epoch twice on GPUs, and undo them; validate once.

        Returns:
            Whether losses, weights and the optimizer's state were the same, byte for byte; True on a CPU.

        Raises:
            StageError: the GPU cannot compute the steps.
        """
        if isinstance(self.loop, HostLoop):
            return True
        before = self.checkpoint("", {})
        results = []
        for _ in range(2):
            try:
                losses = self.loop.first_steps(*self._plan(self.next_epoch))
                if size := self.validation_rows:
                    x, y = self.windows.x_val[:size], self.windows.y_val[:size]
                    self._validation_step(*padded(x, y, size)).numpy()
            except tf.errors.OpError as error:
                # the part after the places in the code, without the operation's name
                reason = " ".join(error.message.split("\n\n")[-1].split("\n\t [[")[0].split())[:300]
                raise StageError(
                    f"the GPU cannot compute the first step: {reason}; try a smaller train.batch_size, "
                    "train.use_cudnn: false, train.precision: float32 or train.device: cpu"
                ) from None
            state = [np.array(losses), *self.model.get_weights(), *optimizer_state(self.optimizer)]
            results.append([array.tobytes() for array in state])
            self.restore(before)
        return results[0] == results[1]

    def evaluate(self, x: np.ndarray, y: np.ndarray, prefix: str) -> Metrics:
        """Compute the metrics of windows that were not trained on.

        Args:
            x: (n, maxlen) windows, n at least 1.
            y: (n,) their targets.
            prefix: of the metrics' names.

        Returns:
            The metrics, for the prefix `val_` those that `epoch` returns.
        """
        if self._evaluated is not self.model:
            self._evaluated.set_weights(self.model.get_weights())
        size = self.validation_rows
        sums = [
            self._validation_step(*padded(x[at : at + size], y[at : at + size], size))
            for at in range(0, len(x), size)
        ]  # a GPU computes on meanwhile
        read = zip(*(each.numpy().tolist() for each in sums), strict=True)
        metrics: Metrics = {}
        for name, of_batches in zip((prefix, f"{prefix}all_"), read, strict=False):
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
        if self._preview_model is not self.model:
            self._preview_model.set_weights(self.model.get_weights())
        draws = uniform_draws(self.seed, epoch, [PREVIEW_TEMPERATURE], self._preview.length)
        with tf.device("cpu"):
            (indices,) = self._preview(self.windows.x[0], draws)
        return decode(indices, self.windows.vocabulary)

    def save(self, path: Path) -> None:
        """Save the model and its optimizer to a `.keras` file that gives (batch, vocab_size)."""
        model = self._build(return_sequences=False)
        optimizer = self._compile(model)
        model.set_weights(self.model.get_weights())
        set_optimizer_state(optimizer, optimizer_state(self.optimizer))
        save_model(model, path, self.vocabulary)
