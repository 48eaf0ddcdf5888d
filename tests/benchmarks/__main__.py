"""The pipeline against the article's script, in turn on this machine: A B A B ...

    python -m tests.benchmarks [--corpus FILE] [--epochs N] [--turns N]

Each side runs in processes of its own, start-up included; peak memory is what the system reports of
each process. Prints the medians, their ratio and the ratio's spread over the turns.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from tests.conftest import ROOT, changed_params, make_text

VECTORIZE_ALONE = """
import json, sys, time
from pathlib import Path
from stages.params import read_params
from stages.vectorize import read_text, vectorize
from stages.windows import save_windows
settings = read_params().vectorize
began = time.perf_counter()
windows = vectorize(read_text(Path("data/corpus.txt"), True, True), settings)
with open("data/windows.npz", "wb") as file:
    save_windows(file, windows, False)
print(json.dumps(time.perf_counter() - began))
"""


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a command; returns its wall seconds, its peak memory in MB and its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=out, stderr=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        output = out.read()
    if process.returncode:
        sys.exit(f"{command} exited with {process.returncode}: {output}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return seconds, kilobytes * 1024 / 1e6, output


def turn_of_the_article(corpus: Path, epochs: int) -> dict[str, float]:
    """The article's script once."""
    wall, memory, output = measured(["-m", "tests.benchmarks.article", str(corpus), str(epochs)], ROOT)
    result = json.loads(output.splitlines()[-1])
    clock = result["seconds"]
    print(f"  article: {wall:6.1f} s  { ({k: round(v, 1) for k, v in clock.items()}) }  losses", end=" ")
    print([round(loss, 3) for loss in result["losses"]], flush=True)
    return {
        "vectorize (text to tensors)": clock["vectorize"],
        "train (an epoch of fit)": clock["fit"] / epochs,
        "generate (an epoch's 1,600 characters)": clock["generate"] / epochs,
        "train and sample, start-up included": wall - clock["vectorize"],
        "peak memory, MB": memory,
    }


def turn_of_the_pipeline(corpus: Path, epochs: int) -> dict[str, float]:
    """The stages once, from nothing, in a folder of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "stages").symlink_to(ROOT / "stages")
        tree = changed_params(train__epochs=epochs)
        (folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        (folder / "data").mkdir()
        shutil.copy(corpus, folder / "data/corpus.txt")
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@example.invalid"]
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], cwd=folder, check=True)
        _, vectorize_memory, output = measured(["-c", VECTORIZE_ALONE], folder)
        vectorize = float(output)
        train, train_memory, output = measured(["-m", "stages.train"], folder)
        epoch_lines = [line for line in output.splitlines() if line.startswith("epoch ")]
        in_epochs = [float(line.split("; ")[1].split(" s")[0]) for line in epoch_lines]
        sample, sample_memory, _ = measured(["-m", "stages.sample"], folder)
        generate = generation_alone(folder)
    memory = max(vectorize_memory, train_memory, sample_memory)
    print(f"  pipeline: train {train:.1f} s, sample {sample:.1f} s, epochs {in_epochs}", flush=True)
    return {
        "vectorize (text to tensors)": vectorize,
        "train (an epoch of fit)": statistics.mean(in_epochs),
        "generate (an epoch's 1,600 characters)": generate,
        "train and sample, start-up included": train + sample,
        "peak memory, MB": memory,
    }


GENERATION_ALONE = """
import json, time
from stages.device import set_up_tensorflow
set_up_tensorflow("cpu")
from stages.generator import Generator, encode_prompt, uniform_draws
from stages.model import build_model
from stages.snapshots import epoch_files, read_snapshot
from stages.windows import first_window
prompt, charset = first_window()
snapshot = read_snapshot(epoch_files()[-1])
model = build_model(**snapshot.model)
model.set_weights(snapshot.weights)
temperatures = [0.2, 0.5, 1.0, 1.2]
generator = Generator(model, temperatures, 400)
def once(epoch):
    began = time.perf_counter()
    generator(encode_prompt(prompt, charset, 40), uniform_draws(0, epoch, temperatures, 400))
    return time.perf_counter() - began
once(0)
print(json.dumps(sorted(once(epoch) for epoch in range(9))[4]))
"""


def generation_alone(folder: Path) -> float:
    """Seconds of one epoch's samples once the program is compiled, the median of nine."""
    return float(measured(["-c", GENERATION_ALONE], folder)[2])


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--corpus", type=Path, help="a text file (default: data/corpus.txt, or made-up text)"
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each side in a turn (2)")
    parser.add_argument("--turns", type=int, default=3, help="how often each side runs (3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or ROOT / "data/corpus.txt"
        if not corpus.is_file():
            corpus = Path(scratch, "made-up.txt")
            corpus.write_text(make_text(600_893), encoding="utf-8")
        versions = subprocess.run(
            [sys.executable, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True
        ).stdout
        wanted = [v for v in versions.split() if v.split("==")[0] in ("tensorflow", "keras", "numpy")]
        print(
            f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {wanted}"
        )
        print(f"{corpus.name}: {corpus.stat().st_size:,} bytes, {options.epochs} epochs a turn")
        turns = []
        for number in range(options.turns):
            print(f"turn {number + 1} of {options.turns}", flush=True)
            article = turn_of_the_article(corpus.resolve(), options.epochs)
            turns.append((article, turn_of_the_pipeline(corpus.resolve(), options.epochs)))
    print(f"\n{'':42} {'article':>10} {'pipeline':>10} {'ratio':>8}  ratios of the turns")
    for what in turns[0][0]:
        sides = np.array([(article[what], pipeline[what]) for article, pipeline in turns])
        ratios = sides[:, 0] / sides[:, 1]
        medians = np.median(sides, axis=0)
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"{what:42} {medians[0]:10.4g} {medians[1]:10.4g} {np.median(ratios):7.2f}x  {spread}")


if __name__ == "__main__":
    main()
