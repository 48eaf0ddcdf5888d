"""A process whose lines are read as they come, each with its time, and the losses that such lines tell."""

import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import surroundings

EPOCH = re.compile(r"epoch (\d+) \(of 0 to \d+\): .*?\bval_loss ([\d.]+)")  # of the train stage
TEST = re.compile(r"test split, the model of epoch (\d+): test_loss ([\d.]+)")
STAGE = re.compile(r"Running stage '(\w+)':")  # of DVC
STEP = re.compile(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)")  # of nanoGPT

Lines = list[tuple[float, str]]


class Timed(NamedTuple):
    """Wall seconds, and each line of standard output with the seconds from the start until it came."""

    seconds: float
    lines: Lines


class Point(NamedTuple):
    """Seconds from the start until a validation loss was printed, and that loss."""

    seconds: float
    loss: float


def timed_lines(command: list[str], folder: Path) -> Timed:
    """Run `python command` to its end, on the CPU. Ends the program if the command fails."""
    environment = surroundings() | {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            encoding="utf-8",
            errors="replace",
        )
        lines = [(time.perf_counter() - began, line.rstrip("\n")) for line in process.stdout or ()]
        code, seconds = process.wait(), time.perf_counter() - began
        err.seek(0)
        if code:
            said = "\n".join(line for _, line in lines[-20:])
            sys.exit(f"{command} exited with {code}: {said}\n{err.read()}")
    return Timed(seconds, lines)


def curve_of(lines: Lines, pattern: re.Pattern[str]) -> dict[int, Point]:
    """The validation loss of each epoch (`EPOCH`) or step (`STEP`), with the time of its line."""
    curve = {
        int(found[1]): Point(seconds, float(found[2]))
        for seconds, line in lines
        if (found := pattern.match(line))
    }
    if not curve:
        raise ValueError(f"no line has a validation loss: {[line for _, line in lines][:20]}")
    return curve


def judged(lines: Lines) -> tuple[int, float]:
    """The epoch whose model was measured on the test split, and its loss."""
    (found,) = (found for _, line in lines if (found := TEST.match(line)))
    return int(found[1]), float(found[2])


def seconds_to(curve: Iterable[Point], loss: float) -> float:
    """Seconds until the first validation loss of at most `loss`; infinite where there is none."""
    return next((point.seconds for point in curve if point.loss <= loss), math.inf)


def seconds_of_stage(done: Timed, stage: str) -> float:
    """Seconds from DVC's line about a stage to that about the next one, or to the end."""
    starts = [(seconds, found[1]) for seconds, line in done.lines if (found := STAGE.match(line))]
    number = [name for _, name in starts].index(stage)
    return [*(seconds for seconds, _ in starts), done.seconds][number + 1] - starts[number][0]
