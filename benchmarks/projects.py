"""Projects that the benchmarks run: copies of this one with a text and parameters of their own."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import measured
from stages.common.recipes import read_recipe
from tests.support import changed_params, copy_of_the_project


def project(folder: Path, corpus: Path | None = None, **changes: Any) -> Path:
    """A copy of the project with a text of its own, in a git repository of its own."""
    copy_of_the_project(folder)
    if corpus:
        shutil.copy(corpus, folder / "corpora/book.txt")
    changes = {"download__corpus": "corpora/book.txt", "download__max_bytes": 10**9} | changes
    tree = changed_params(**changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@example.invalid"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    return folder


def settings_of(recipe: str) -> dict[str, Any]:
    """What a recipe sets, as `project` takes it."""
    return {
        f"{section}__{key}": value
        for section, values in read_recipe(recipe).params.items()
        for key, value in values.items()
    }


def last_json(output: str) -> Any:
    """What a process printed on its last line."""
    return json.loads(output.splitlines()[-1])


def epochs_in_turn(
    corpus: Path, sides: dict[str, dict[str, Any]], turns: int
) -> dict[str, list[dict[str, float]]]:
    """`seconds` and `windows` a second of each side's second epoch, in turn; no compilation in it."""
    clocks: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for name, settings in sides.items():
            alike = {"train__epochs": 2, "train__preview": 0}
            folders[name] = project(Path(scratch, name), corpus, **(settings | alike))
            for stage in ("download", "vectorize"):
                measured(["-m", f"stages.{stage}"], folders[name])
        for turn in range(turns):
            for name, folder in folders.items():
                shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
                done = measured(["-m", "stages.train"], folder)
                (line,) = (line for line in done.output.splitlines() if line.startswith("epoch 1 "))
                seconds, speed = line.split("; ")[1].removesuffix(" windows/s").split(" s, ")
                clocks[name].append({"seconds": float(seconds), "windows": float(speed.replace(",", ""))})
            print(turn + 1, {name: each[-1]["seconds"] for name, each in clocks.items()}, flush=True)
    return clocks
