"""The rows of the leaderboard: what runs for each, once, and what it reached."""

import math
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import measured
from benchmarks.projects import last_json, project, settings_of
from benchmarks.timed_lines import (
    EPOCH,
    STEP,
    Point,
    Timed,
    curve_of,
    judged,
    seconds_of_stage,
    seconds_to,
    timed_lines,
)
from stages.common.paths import BASELINE_FILE, CHECKPOINTS_DIR
from stages.evaluation.ngram import best_of
from stages.training.checkpoints import read_checkpoint

NANOGPT = (  # its README's command for a CPU
    "train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 "
    "--lr_decay_iters=2000 --dropout=0.0"
)
SMALL = {"model__units": 16, "train__epochs": 2, "train__decay_epochs": 2, "sample__length": 20}
SMALL_NANOGPT = "--eval_interval=10 --eval_iters=2 --max_iters=20 --lr_decay_iters=20"


class Result(NamedTuple):
    """What one run reached.

    Losses are in nats per character; not a number where there is none. `training` is the part of `seconds`
    without other stages, `reached` the seconds to each asked loss, infinite where it was not reached.
    """

    size: str
    validation: float
    test: float
    last_tenth: float
    seconds: float
    training: float
    reached: tuple[float, ...]


def middle_of(turns: Iterable[Result]) -> Result:
    """The medians of the turns."""
    turns = list(turns)
    *numbers, reached = zip(*(turn[1:] for turn in turns), strict=True)
    medians = [statistics.median(each) for each in numbers]
    return Result._make([turns[0].size, *medians, tuple(map(statistics.median, zip(*reached, strict=True)))])


@dataclass(frozen=True)
class Board:
    """What all rows share.

    Attributes:
        corpus: the text.
        changes: parameters of every project, as `project` takes them.
        reach: the validation losses to be reached.
        prepared: a folder for the rows that need no project of their own in each turn.
        rehearse: whether everything is to be small.
    """

    corpus: Path
    changes: dict[str, Any]
    reach: tuple[float, ...]
    prepared: Path
    rehearse: bool

    def project(self, folder: Path, recipe: str, **changes: Any) -> Path:
        """A project with a recipe and the text, split as it is for everyone."""
        small = SMALL if self.rehearse else {}
        return project(folder, self.corpus, **(settings_of(recipe) | self.changes | small | changes))

    def windows(self, name: str, **changes: Any) -> Path:
        """The project `name` with the recipe `quick` and its windows, made at the first call."""
        folder = self.prepared / name
        if not folder.exists():
            self.project(folder, "quick", **changes)
            for stage in ("download", "vectorize"):
                measured(["-m", f"stages.{stage}"], folder)
        return folder

    def recipe(self, name: str, precision: str) -> Result:
        """`dvc repro` in a new project with an empty cache."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.project(Path(scratch), name, train__precision=precision)
            done = timed_lines(["-m", "dvc", "repro"], folder)
            checkpoint = read_checkpoint(min((folder / CHECKPOINTS_DIR).glob("*.npz")))
        parameters = sum(array.size for array in checkpoint.weights)
        return self._trained(parameters, done, seconds_of_stage(done, "train"))

    def torch(self) -> Result:
        """PyTorch's training of the recipe `quick`, from its windows."""
        done = timed_lines(["-m", "benchmarks.torch_recipe"], self.windows("torch"))
        (parameters,) = (line.split(": ")[1] for _, line in done.lines if line.startswith("parameters: "))
        return self._trained(int(parameters), done, done.seconds)

    def _trained(self, parameters: int, done: Timed, training: float) -> Result:
        """What the lines of a training say."""
        curve = curve_of(done.lines, EPOCH)
        kept, test = judged(done.lines)
        validation = curve[kept].loss
        return Result(
            f"{parameters:,}",
            validation,
            test,
            (validation + test) / 2,
            done.seconds,
            training,
            self._reached(curve.values()),
        )

    def ngram(self) -> Result:
        """The best n-gram, measured on every character of both splits but the first of each."""
        folder = self.windows("ngram", vectorize__validation_step=1)
        seconds = measured(["-m", "stages.baseline"], folder).seconds
        best = best_of((folder / BASELINE_FILE).read_text(encoding="utf-8"))
        if best is None:
            raise ValueError("no n-gram was measured")
        losses = best["val_loss"], best["test_loss"]
        reached = self._reached([Point(seconds, losses[0])])
        return Result(f"n = {best['n']}", *losses, statistics.mean(losses), seconds, seconds, reached)

    def ppmd(self) -> Result:
        """PPMd's size of the last tenth."""
        done = measured(["-m", "benchmarks.ppmd"], self.windows("ppmd"))
        validation, test, last_tenth = (
            last_json(done.output)[part] * math.log(2) for part in ("validation", "test", "last_tenth")
        )
        reached = self._reached([Point(done.seconds, validation)])
        return Result("", validation, test, last_tenth, done.seconds, done.seconds, reached)

    def nanogpt(self, folder: Path) -> Result:
        """NanoGPT's training on a CPU; its losses are of random batches of the last tenth."""
        small = SMALL_NANOGPT.split() if self.rehearse else []
        with tempfile.TemporaryDirectory() as scratch:
            done = timed_lines([*NANOGPT.split(), *small, f"--out_dir={scratch}"], folder)
        (size,) = (line.split(": ")[1] for _, line in done.lines if line.startswith("number of parameters: "))
        curve = curve_of(done.lines, STEP)
        lowest = min(point.loss for point in curve.values())
        reached = self._reached(curve.values())
        return Result(size, math.nan, math.nan, lowest, done.seconds, done.seconds, reached)

    def _reached(self, curve: Iterable[Point]) -> tuple[float, ...]:
        """Seconds to each loss that was asked for."""
        curve = list(curve)
        return tuple(seconds_to(curve, loss) for loss in self.reach)
