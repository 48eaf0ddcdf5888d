"""Two workers against one process, and two trainings at once, in turn."""

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks import workers
from benchmarks.measure import column, measured, middle, ratio, table
from benchmarks.projects import epochs_in_turn, project
from benchmarks.steps import cores


def two_trainings(corpus: Path, turns: int) -> None:
    """Two trainings of three epochs, start-up included: at once or not, sharing the cores or not."""
    sides = {
        "one after the other, on all cores": (1, None),
        "at once, each with half of the cores (`train.cores`)": (2, max(1, cores() // 2)),
        "at once, each with all cores": (2, None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [project(Path(scratch, str(n)), corpus, train__epochs=3) for n in (0, 1)]
        for folder in folders:
            for stage in ("download", "vectorize"):
                measured(["-m", f"stages.{stage}"], folder)
        for turn in range(turns):
            for name, (at_once, share) in sides.items():
                for folder in folders:
                    shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
                    tree = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
                    tree["train"]["cores"] = share
                    (folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
                began = time.perf_counter()
                with ThreadPoolExecutor(at_once) as pool:
                    list(pool.map(lambda folder: measured(["-m", "stages.train"], folder), folders))
                seconds[name].append(time.perf_counter() - began)
            print(turn + 1, {name: round(each[-1], 1) for name, each in seconds.items()}, flush=True)
    first = next(iter(seconds.values()))
    rows = [(name, middle(each), ratio(first, each)) for name, each in seconds.items()]
    table("Two trainings", ("", "s", "faster than one after the other (of the turns)"), rows)


def workers_in_turn(corpus: Path, turns: int) -> None:
    """One process and two workers, two experiments at once, on a quarter of the text."""
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch, "part.txt")
        part.write_bytes(corpus.read_bytes()[: corpus.stat().st_size // 4])
        two_trainings(part, turns)
        clocks = epochs_in_turn(part, workers.SIDES, turns)
    steps = {
        name: [workers.SIDES[name]["train__batch_size"] / speed for speed in column(each, "windows")]
        for name, each in clocks.items()
    }
    workers.report(steps, [workers.exchange() for _ in range(turns)])
