"""The trainer: the model, its optimizer, and one epoch of training."""

import contextlib
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.common.combinations import require_fitting
from stages.common.history import Metrics
from stages.common.params import Params
from stages.distributed.strategy import Distribution
from stages.model.architecture import build_model, compile_model, optimizer_state, set_optimizer_state
from stages.model.export import save_model
from stages.model.generator import Generator, uniform_draws
from stages.text.vocabulary import decode, vocabulary_sha256
from stages.text.windows import Windows
from stages.training.checkpoints import Checkpoint
from stages.training.device_loop import DeviceLoop
from stages.training.failures import require_finite
from stages.training.host_loop import HostLoop
from stages.training.initial_weights import file_of, initial_weights
from stages.training.plan import Plan
from stages.training.steps import keras_microbatch
from stages.training.validation import CarriedValidation, WindowValidation

PREVIEW_TEMPERATURE = 0.5
VALIDATION_ROWS = 256  # validation windows in a microbatch


class Trainer:
    """The model, its optimizer and the windows that it learns from.

    Attributes:
        model: the Keras model.
        optimizer: its optimizer.
        windows: what it is trained on.
        next_epoch: the one epoch that the present state can be trained on.
        plan: what each epoch learns from.
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
            StageError: parameters do not go together on this device.
        """
        require_fitting(params, device)
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
        self.plan = Plan(train, len(windows.x))
        keras.utils.set_random_seed(train.seed)  # of the initial weights, Keras's only random draw
        with tf.device("cpu"):
            host_model = self._build()
        if initial := file_of(train.init_from):
            random = host_model.get_weights()
            host_model.set_weights(initial_weights(initial, params, windows.vocabulary, random))
        if train.tied_embedding:
            host_model.layers[-1].kernel.assign(np.transpose(host_model.layers[0].kernel))
        self.model = self._evaluated = self._preview_model = host_model
        self.loop: HostLoop | DeviceLoop
        if device == "gpu":
            self._build_on_gpus(distribution)
            microbatches, validation_rows = 1, max(VALIDATION_ROWS, self.plan.batch_size)
        else:
            self.optimizer = self._compile(host_model)
            microbatches, validation_rows = train.microbatches, VALIDATION_ROWS
            self.loop = HostLoop(host_model, microbatches, train, distribution, windows, self.plan)
        if train.ema_momentum is not None and self._evaluated is self.model:
            with tf.device("cpu" if device == "cpu" else None):
                self._evaluated = self._build()
        self._validate: CarriedValidation | WindowValidation
        if train.state == "carried":
            self._validate = CarriedValidation(self._evaluated, microbatches)
        else:
            longest = max(len(windows.x_val), len(windows.x_test))
            rows = min(validation_rows, math.ceil(longest / microbatches)) * microbatches
            self._validate = WindowValidation(self._evaluated, rows, microbatches)
        # on the CPU also where a GPU trains: generation is one XLA program, and XLA may not find its own
        # libraries for the GPU
        self._preview_model = self._evaluated if device == "cpu" else host_model
        arguments = [PREVIEW_TEMPERATURE], train.preview, train.state == "carried"
        self._preview = Generator(self._preview_model, *arguments) if train.preview else None

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
        self.loop = DeviceLoop(gradients_of, self.model, distribution, self.windows, self.plan)

    def _build(self, **options: Any) -> keras.Sequential:
        """Build a model of this run."""
        options = {"return_sequences": self.train.targets == "all"} | options
        return build_model(**self.model_arguments, **options)

    def _compile(self, model: keras.Sequential) -> keras.optimizers.Optimizer:
        """Compile a model of this run. Returns its optimizer."""
        train = self.train
        return compile_model(
            model,
            train.learning_rate,
            train.optimizer,
            train.clip_norm,
            train.weight_decay,
            train.ema_momentum,
        )

    def epoch(self, epoch: int) -> Metrics:
        """Train on every window once or, with `train.steps_per_epoch`, on the next ones in their order.

        Args:
            epoch: counted from 0; has to be `next_epoch`, so that no caller can skip or repeat one.

        Returns:
            `loss`, the mean cross-entropy in nats over the windows while the weights were changing, as
            Keras reports it, with `train.targets: all` also over their positions; with a validation split
            `val_loss`, that of the character after each validation window once the epoch is over, and
            with `train.targets: all` `val_all_loss`, that over its positions, too; with a carried state
            `val_loss` is that of the whole split; each also in bits, `bits_per_char`, `val_bits_per_char`
            and `val_all_bits_per_char`.

        Raises:
            StageError: a loss or a weight is not finite.
            ValueError: the present state is not that before this epoch.
        """
        if epoch != self.next_epoch:
            raise ValueError(f"the state is that before epoch {self.next_epoch}, not {epoch}")
        windows, size = self.windows, self.plan.batch_size
        order, keys, rates = self.plan(epoch)
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
        self._update_evaluated()
        if len(windows.x_val):
            metrics |= self.evaluate(windows.x_val, windows.y_val, "val_")
            require_finite(metrics["val_loss"], f"the validation of epoch {epoch}")
        if not all(np.isfinite(array).all() for array in self.model.get_weights()):
            require_finite(math.nan, f"the step after epoch {epoch}")  # the last update made it so
        return metrics

    def repeats_first_steps(self) -> bool:
        """Take the first steps of the next epoch twice on GPUs, and undo them; validate a window each time.

        Returns:
            Whether losses, weights and the optimizer's state were the same, byte for byte; True on a CPU.

        Raises:
            tf.errors.OpError: the GPU cannot compute the steps.
        """
        if isinstance(self.loop, HostLoop):
            return True
        before = self.checkpoint("", {})
        results = []
        for _ in range(2):
            losses = self.loop.first_steps(*self.plan(self.next_epoch))
            if len(self.windows.x_val):
                self._validate(self.windows.x_val[:1], self.windows.y_val[:1])
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
        metrics: Metrics = {}
        for name, loss in zip((prefix, f"{prefix}all_"), self._validate(x, y), strict=False):
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
        averaged = self.train.ema_momentum is not None
        return Checkpoint(
            epoch=self.next_epoch - 1,
            fingerprint=fingerprint,
            model=self.model_arguments,
            vocabulary=self.vocabulary,
            metrics=metrics,
            weights=self._evaluated.get_weights(),
            optimizer=optimizer_state(self.optimizer),
            training_weights=self.model.get_weights() if averaged else [],
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        self.model.set_weights(checkpoint.training_weights or checkpoint.weights)
        set_optimizer_state(self.optimizer, checkpoint.optimizer)
        self._update_evaluated()
        self.next_epoch = checkpoint.epoch + 1

    def _update_evaluated(self) -> None:
        """Give the evaluated model the present weights, or their average where there is one."""
        if self._evaluated is not self.model:
            present = self.model.get_weights()  # on several GPUs Keras writes averages to this model only
            if self.train.ema_momentum is not None:
                self.optimizer.finalize_variable_values(self.model.trainable_variables)
            self._evaluated.set_weights(self.model.get_weights())
            self.model.set_weights(present)

    def preview(self, epoch: int) -> str:
        """Generate a few characters for the terminal, keyed by the epoch."""
        if self._preview is None:
            return ""
        if self._preview_model is not self._evaluated:
            self._preview_model.set_weights(self._evaluated.get_weights())
        draws = uniform_draws(self.seed, epoch, [PREVIEW_TEMPERATURE], self._preview.length)
        with tf.device("cpu"):
            (indices,) = self._preview(self.windows.x[0], draws)
        return decode(indices, self.windows.vocabulary)

    def save(self, path: Path) -> None:
        """Save the model and its optimizer to a `.keras` file that gives (batch, vocab_size)."""
        model = self._build(return_sequences=False)
        optimizer = self._compile(model)
        model.set_weights(self._evaluated.get_weights())
        set_optimizer_state(optimizer, optimizer_state(self.optimizer))
        save_model(model, path, self.vocabulary)
