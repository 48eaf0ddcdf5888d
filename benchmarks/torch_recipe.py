"""A recipe without regularization, trained by PyTorch's nn.LSTM, in a process of its own.

    python -m benchmarks.torch_recipe

It reads the parameters and the windows of the workspace and trains as the stage `train` does: the same
initial distributions, order of the windows, carried state, learning rates, clipping and validation, in
float32. Prints the lines of that stage that have losses, and the number of parameters.
"""

import copy
import math
import sys

import numpy as np
import torch
from torch import nn

from benchmarks.steps import cores
from stages.common.errors import run_stage
from stages.common.params import Params, Train, read_params
from stages.text.windows import Windows
from stages.text.windows_file import load_windows
from stages.training.plan import Plan

LANES, WARM_UP = 64, 256  # as `stages.training.validation` has them, which imports TensorFlow
BETAS, EPSILON = (0.9, 0.999), 1e-7  # of Keras's Adam

State = tuple[torch.Tensor, torch.Tensor]


class Network(nn.Module):
    """An embedding if asked for, one LSTM layer, the output layer; Keras's initial distributions.

    PyTorch's LSTM has two biases that are added. The second one stays 0, so the model is Keras's.
    """

    def __init__(self, size: int, units: int, embedding: int | None) -> None:
        super().__init__()
        self.size = size
        self.embedding = None if embedding is None else nn.Embedding(size, embedding)
        if self.embedding is not None:
            nn.init.xavier_uniform_(self.embedding.weight)
        self.lstm = nn.LSTM(size if embedding is None else embedding, units, batch_first=True)
        self.dense = nn.Linear(units, size)
        nn.init.xavier_uniform_(self.lstm.weight_ih_l0)
        nn.init.orthogonal_(self.lstm.weight_hh_l0)
        nn.init.xavier_uniform_(self.dense.weight)
        for bias in (self.lstm.bias_ih_l0, self.lstm.bias_hh_l0, self.dense.bias):
            nn.init.zeros_(bias)
        nn.init.ones_(self.lstm.bias_ih_l0[units : 2 * units])  # the forget gate's
        self.lstm.bias_hh_l0.requires_grad = False

    def zero_state(self, rows: int) -> State:
        """The state before a text."""
        zeros = torch.zeros(1, rows, self.lstm.hidden_size)
        return zeros, zeros

    def forward(self, x: torch.Tensor, goes_on: np.ndarray, state: State) -> tuple[torch.Tensor, State]:
        """Logits (n, T, size) after each position of x (n, T), and the state after.

        A row goes on from the state before, or begins with zeros.
        """
        kept = torch.from_numpy(goes_on.astype("f4"))[None, :, None]
        inputs = nn.functional.one_hot(x, self.size).float() if self.embedding is None else self.embedding(x)
        outputs, after = self.lstm(inputs, (state[0] * kept, state[1] * kept))
        return self.dense(outputs), after


def joined(x: np.ndarray, y: np.ndarray) -> torch.Tensor:
    """Windows with their targets as their last character."""
    return torch.from_numpy(np.concatenate([x, y[:, None]], axis=1).astype("i8"))


class Training:
    """The network, its optimizer, and what it learns from."""

    def __init__(self, params: Params, windows: Windows) -> None:
        require_plain(params)
        torch.manual_seed(params.train.seed)
        self.train: Train = params.train
        self.plan = Plan(params.train, len(windows.x))
        self.text = joined(windows.x, windows.y)
        self.network = Network(len(windows.vocabulary), params.model.units, params.model.embedding)
        self.weights = [each for each in self.network.parameters() if each.requires_grad]
        self.optimizer = torch.optim.Adam(self.weights, betas=BETAS)

    def epoch(self, epoch: int) -> float:
        """Train for an epoch. Returns the mean loss while the weights were changing."""
        order, _, rates = self.plan(epoch)
        size, total, before = self.plan.batch_size, 0.0, None
        state = self.network.zero_state(size)
        for step, rate in enumerate(rates):
            chosen = order[step * size :][:size]
            goes_on = np.zeros(size, bool) if before is None else chosen == before + 1
            before = chosen
            rows = self.text[torch.from_numpy(chosen.astype("i8"))]
            logits, (h, c) = self.network(rows[:, :-1], goes_on, state)
            state = h.detach(), c.detach()
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            if self.train.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.weights, self.train.clip_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = float(rate)
                # Keras adds epsilon before it corrects the bias of the second moment
                group["eps"] = EPSILON / math.sqrt(1 - BETAS[1] ** (epoch * len(rates) + step + 1))
            self.optimizer.step()
            total += loss.item()
        return total / len(rates)

    @torch.no_grad()
    def evaluate(self, x: np.ndarray, y: np.ndarray) -> float:
        """The mean loss of a text that is read in lanes, each after some characters of warm-up."""
        text = joined(x, y)
        each, warm_up = math.ceil(len(x) / LANES), math.ceil(WARM_UP / x.shape[1])
        state, total = self.network.zero_state(LANES), 0.0
        for step in range(-warm_up, each):
            at = np.arange(LANES) * each + step
            rows = text[torch.from_numpy(np.clip(at, 0, len(x) - 1))]
            logits, state = self.network(rows[:, :-1], (at > 0) & (step > -warm_up), state)
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
            if step >= 0:
                total += losses[torch.from_numpy(at < len(x))].sum(dtype=torch.float64).item()
        return total / x.size


def require_plain(params: Params) -> None:
    """End with a line where the parameters are of another training than the one that is written here."""
    expected = {
        "model": {"cell": "lstm", "layers": 1, "dropout": 0.0},
        "train": {
            "targets": "all",
            "state": "carried",
            "optimizer": "adam",
            "weight_decay": 0.0,
            "ema_momentum": None,
            "weight_dropout": 0.0,
            "embedding_dropout": 0.0,
            "tied_embedding": False,
            "keep": "best",
        },
    }
    for section, values in expected.items():
        for name, value in values.items():
            given = getattr(getattr(params, section), name)
            if given != value:
                sys.exit(f"error: {section}.{name}: got {given!r}; PyTorch trains here with {value!r} only")


def main() -> None:
    """Train for all epochs, and measure the best one on the test split."""
    torch.set_num_threads(cores())
    params, windows = read_params(), load_windows()
    training = Training(params, windows)
    print(f"parameters: {sum(each.numel() for each in training.weights)}", flush=True)
    epochs = params.train.epochs
    best, kept, weights = math.inf, 0, training.network.state_dict()
    for epoch in range(epochs):
        loss = training.epoch(epoch)
        validation = training.evaluate(windows.x_val, windows.y_val)
        if validation < best:
            best, kept, weights = validation, epoch, copy.deepcopy(training.network.state_dict())
        print(f"epoch {epoch} (of 0 to {epochs - 1}): loss {loss:.4f}, val_loss {validation:.4f}", flush=True)
    training.network.load_state_dict(weights)
    test = training.evaluate(windows.x_test, windows.y_test)
    print(f"test split, the model of epoch {kept}: test_loss {test:.4f}", flush=True)


if __name__ == "__main__":
    run_stage(main)
