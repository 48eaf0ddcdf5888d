"""What the benchmarks share: a process with its time and peak memory, and turns as ratios with spread."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT


class Measured(NamedTuple):
    """Wall seconds, peak memory in MB (1e6 bytes) of the largest process, and standard output."""

    seconds: float
    megabytes: float
    output: str


def surroundings() -> dict[str, str]:
    """The environment of what is measured, without the variables that slow numpy's BLAS down."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    return env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}


def measured(command: list[str], folder: Path = ROOT, **environment: str) -> Measured:
    """Run `python command` to its end; memory is what the system reports of it and its children.

    The system counts this process's own memory among it (Linux: at the moment of the start), so keep
    that small.

    Ends the program if the command fails.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=out, stderr=err, env=surroundings() | environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{command} exited with {process.returncode}: {out.read()}{err.read()}")
        kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        return Measured(seconds, kilobytes * 1024 / 1e6, out.read())


def machine() -> str:
    """The machine and the versions that matter, in one line."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line for line in about.splitlines() if line.startswith("model name")).split(": ")[1]
        known = set(next(line for line in about.splitlines() if line.startswith("flags")).split())
        flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in known]
    except (OSError, StopIteration, IndexError):
        name, flags = platform.processor() or platform.machine(), []
    versions = []
    for package in ("tensorflow", "keras", "numpy", "torch", "dvc"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"Python {platform.python_version()}"
    return f"{name} ({' '.join(flags)}), {usable} cores, {python}, {', '.join(versions)}"


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table in Markdown, as the documents have it."""
    print(f"\n{title}\n")
    header = list(header)
    print("| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def ratio(over: Iterable[float], under: Iterable[float]) -> str:
    """The median of the turns' ratios, with the smallest and the largest."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"


def column(turns: Iterable[Mapping[str, float]], what: str) -> list[float]:
    """One measurement of all turns."""
    return [turn[what] for turn in turns]


def middle(values: Iterable[float]) -> str:
    """The median, to three digits."""
    median = statistics.median(values)
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"
