"""A process that trains, with the speed of its epochs and what the device does meanwhile.

How busy a GPU is comes from `nvidia-smi`, five times a second: the share of its last sampling period in
which any kernel ran, however little of the card that kernel filled; the mean from the end of the first epoch
to that of the last. Memory is what the card holds beyond what it held before. In a rehearsal on the CPU, the
processor and the memory of the machine stand in for those of the card.
"""

import math
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import surroundings
from tests.gpu.gpu_support import first_gpu, smi

RATE = re.compile(r"epoch \d+.* ([\d,]+) windows/s")
OF_THE_CPU = """
import psutil
while True:
    print(f"{psutil.cpu_percent(0.2)}, {psutil.virtual_memory().used >> 20}", flush=True)
"""


class Watched(NamedTuple):
    """Wall seconds, windows/s of the epochs, how busy the device was in %, its peak MiB; or the failure."""

    seconds: float = math.nan
    rates: tuple[float, ...] = ()
    busy: float = math.nan
    mebibytes: float = math.nan
    failure: str = ""


def watched(command: list[str], folder: Path, device: str) -> Watched:
    """Run `python command` to its end and watch the device meanwhile."""
    environment = surroundings() | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers the cards
        "CUDA_VISIBLE_DEVICES": first_gpu() if device == "gpu" else "-1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # or the article's fit takes the whole card at once
    }
    on_gpu = device == "gpu"
    asked = (
        smi("utilization.gpu,memory.used", "-lms", "200") if on_gpu else [sys.executable, "-c", OF_THE_CPU]
    )
    samples: list[list[float]] = []  # time, %, MiB
    sampler = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)

    def collect() -> None:
        for line in sampler.stdout or ():
            values = [float(v) if v.strip()[:1].isdigit() else math.nan for v in line.split(",")]  # or [N/A]
            samples.append([time.monotonic(), *values])

    reader = threading.Thread(target=collect)
    reader.start()
    while not samples and sampler.poll() is None:
        time.sleep(0.01)
    marks: list[tuple[float, float]] = []
    with tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        run = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
        for line in run.stdout or ():
            if found := RATE.match(line):
                marks.append((time.monotonic(), float(found[1].replace(",", ""))))
        code, seconds = run.wait(), time.monotonic() - began
        sampler.kill()
        reader.join()
        sampler.wait()
        err.seek(0)
        said = [line for line in err.read().splitlines() if line.strip()] or [f"exit code {code}"]
    if code or len(marks) < 2:
        return Watched(failure=next((line for line in said if line.startswith("error: ")), said[-1]))
    inside = [percent for at, percent, _ in samples if marks[0][0] <= at <= marks[-1][0]]
    busy = [percent for percent in inside if not math.isnan(percent)] or [math.nan]
    peak = max([used for *_, used in samples], default=math.nan) - samples[0][2] if samples else math.nan
    return Watched(seconds, tuple(rate for _, rate in marks[1:]), statistics.mean(busy), peak)
