"""Training on one GPU: the pipeline, the article's `fit` and PyTorch, in turn on the same card.

An epoch's time is that of later epochs than the first, which compiles. `benchmarks/watch.py` says what the
other columns are.
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, measured, middle, ratio, table
from benchmarks.projects import project
from benchmarks.watch import Watched, smi, watched
from tests.gpu.gpu_support import find_gpus
from tests.support import ROOT

SIDES: dict[str, dict[str, Any]] = {
    "pipeline": {},
    "pipeline, `use_cudnn: false`": {"train__use_cudnn": False},
    "pipeline, `precision: tf32`": {"train__precision": "tf32"},
    "pipeline, `precision: mixed_bfloat16`": {"train__precision": "mixed_bfloat16"},
}
OTHERS = {"article's `fit`, TensorFlow as it comes (tf32)": "fit", "PyTorch `nn.LSTM`, float32": "torch"}
WHOLE = "`dvc repro` from nothing"


def require_device(device: str) -> None:
    """End with one line where there is no GPU to measure."""
    if device == "gpu" and (reason := find_gpus().reason):
        sys.exit(f"error: {reason}; `--device cpu` rehearses this benchmark on the CPU")
    if device == "gpu" and not shutil.which("nvidia-smi"):
        sys.exit("error: nvidia-smi is missing, which measures how busy the GPU is; it comes with the driver")


def gpu_in_turn(corpus: Path, epochs: int, turns: int, device: str) -> None:
    """All sides in turn, then `dvc repro` from nothing; at the end a form to copy into a report."""
    alike = {"train__epochs": 11 if device == "gpu" else 3, "train__preview": 0, "train__device": device}
    commands: dict[str, tuple[list[str], Path]] = {}
    runs: dict[str, list[Watched]] = {}
    device_file = ""
    with tempfile.TemporaryDirectory() as scratch:
        for name, settings in SIDES.items():
            folder = project(Path(scratch, str(len(commands))), corpus, **settings | alike)
            commands[name] = (["-m", "stages.train"], folder)
            if len(commands) > 1:
                shutil.copy(Path(scratch, "0/data/windows.npz"), folder / "data")
                continue
            for stage in ("download", "vectorize"):
                measured(["-m", f"stages.{stage}"], folder)
        windows = json.loads(Path(scratch, "0/metrics/windows.json").read_text(encoding="utf-8"))["windows"]
        for name, kind in OTHERS.items():
            steps = [str(math.ceil(windows / 1024)), str(alike["train__epochs"]), device]
            commands[name] = (["-m", "benchmarks.steps", kind, *steps], ROOT)
        for turn in range(turns):
            whole = project(
                Path(scratch, f"whole-{turn}"), corpus, train__epochs=epochs, train__device=device
            )
            for name, (command, folder) in (commands | {WHOLE: (["-m", "dvc", "repro"], whole)}).items():
                if folder != ROOT:
                    shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
                runs.setdefault(name, []).append(watched(command, folder, device))
                rates = " ".join(f"{rate:,.0f}" for rate in runs[name][-1].rates)
                print(turn + 1, name, runs[name][-1].failure or f"windows/s: {rates}", flush=True)
            if (path := whole / "metrics/train/device.json").exists():
                device_file = path.read_text(encoding="utf-8")
    print_form(runs, windows, epochs, device, device_file)


def print_form(
    runs: dict[str, list[Watched]], windows: int, epochs: int, device: str, device_file: str
) -> None:
    """What a user can copy into a report."""
    failures = {name: each.failure for name, done in runs.items() for each in done if each.failure}
    runs = {name: done for name, done in runs.items() if name not in failures}
    speeds = {name: [statistics.median(each.rates) for each in done] for name, done in runs.items()}
    rehearsal = "REHEARSAL ON A CPU, no measurement: " if device == "cpu" else ""
    print(f"\n----- {rehearsal}GPU report, copy from here")
    print(f"machine: {machine()}")
    if device == "gpu":
        query = smi("name,driver_version,memory.total,compute_cap")
        print(f"GPU, driver, MiB, compute capability: {subprocess.check_output(query, text=True).strip()}")
    print(f"metrics/train/device.json: {device_file or 'there is none'}")
    rows = [
        (
            name,
            middle([windows / speed for speed in speeds[name]]),
            middle(speeds[name]),
            ratio(speeds["pipeline"], speeds[name]) if "pipeline" in speeds and name != "pipeline" else "",
            f"{statistics.mean(each.busy for each in done):.0f}",
            middle([each.mebibytes for each in done]),
        )
        for name, done in runs.items()
        if name != WHOLE
    ]
    header = ("", "an epoch, s", "windows/s", "pipeline is faster by (of the turns)", "busy, %", "peak, MiB")
    table(f"Training, {windows:,} windows ({len(next(iter(runs.values()), []))} turns)", header, rows)
    if WHOLE in runs:
        print(f"{epochs} epochs, {WHOLE}: {middle([each.seconds for each in runs[WHOLE]])} s")
    print("did not work:" + ("".join(f"\n- {name}: {said}" for name, said in failures.items()) or " nothing"))
    print("what I noticed:\n----- to here")
