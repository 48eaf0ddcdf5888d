"""What starting costs."""

import shutil
import subprocess
import tempfile
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
        empty = Path(scratch, "empty")
        empty.mkdir()
        subprocess.run(["git", "init", "-q"], cwd=empty, check=True)
        measured(["-m", "dvc", "init", "-q"], empty)
        # without DVC's analytics, too, which would run on beside the next measurement
        shutil.copy(folder / ".dvc/config", empty / ".dvc/config")
        (empty / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
        measured(["-m", "dvc", "repro"], folder)
        bare, nothing = [], []
        for _ in range(max(turns, 11)):
            bare.append(measured(["-m", "dvc", "repro"], empty).seconds)
            nothing.append(measured(["-m", "dvc", "repro"], folder).seconds)
        commands = {f"stage `{s}`": ["-m", f"stages.{s}"] for s in ("download", "vectorize")}
        commands["stage `train`, its epoch taken from the store"] = ["-m", "stages.train"]
        commands["stage `sample`, one epoch"] = ["-m", "stages.sample"]
        commands["`import tensorflow` alone"] = ["-c", "import tensorflow"]
        clocks: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(turns):
            for what, command in commands.items():
                clocks[what].append(measured(command, folder).seconds)
    rows = [
        ("`dvc repro` in an empty project (`stages: {}`)", middle(bare), ""),
        ("`dvc repro` with nothing to do", middle(nothing), ratio(nothing, bare)),
        *((what, middle(seconds), "") for what, seconds in clocks.items()),
    ]
    table(f"Fixed costs ({turns} turns, of `dvc repro` {len(bare)})", ("", "s", "ratio"), rows)
