"""What starting costs."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measure import measured, middle, ratio, table
from benchmarks.projects import project
from tests.support import make_text


def fixed_costs(turns: int) -> None:
    """`dvc repro` with nothing to do over an empty project's, and each stage on next to nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch, "text")
        text.write_text(make_text(3000), encoding="utf-8")
        folder = project(Path(scratch, "project"), text, train__epochs=1)
        empty, silent = (Path(scratch, name) for name in ("empty", "silent"))
        for each in empty, silent:
            each.mkdir()
            subprocess.run(["git", "init", "-q"], cwd=each, check=True)
            measured(["-m", "dvc", "init", "-q"], each)
            (each / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
        shutil.copy(folder / ".dvc/config", silent / ".dvc/config")
        measured(["-m", "dvc", "repro"], folder)
        bare, without_analytics, nothing = [], [], []
        for _ in range(max(turns, 11)):
            without_analytics.append(measured(["-m", "dvc", "repro"], silent).seconds)
            nothing.append(measured(["-m", "dvc", "repro"], folder).seconds)
            bare.append(measured(["-m", "dvc", "repro"], empty).seconds)
            time.sleep(3)  # its analytics go on in the background
        commands = {f"stage `{s}`": ["-m", f"stages.{s}"] for s in ("download", "vectorize")}
        commands["stage `train`, its epoch taken from the store"] = ["-m", "stages.train"]
        commands["stage `sample`, one epoch"] = ["-m", "stages.sample"]
        commands["`import tensorflow` alone"] = ["-c", "import tensorflow"]
        clocks: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(turns):
            for what, command in commands.items():
                clocks[what].append(measured(command, folder).seconds)
    rows = [
        ("`dvc repro` with nothing to do", middle(nothing), ""),
        ("in an empty project (`stages: {}`), as `dvc init` leaves it", middle(bare), ratio(nothing, bare)),
        (
            "in one without DVC's analytics, as this project is",
            middle(without_analytics),
            ratio(nothing, without_analytics),
        ),
        *((what, middle(seconds), "") for what, seconds in clocks.items()),
    ]
    table(f"Fixed costs ({turns} turns, of `dvc repro` {len(bare)})", ("", "s", "ratio"), rows)
