"""The pipeline against the article's script, stock Keras and PyTorch, in turn on this machine: A B A B.

    python -m tests.benchmarks [--turns N] [--parts PART ...] [--corpus FILE] [--epochs N] [--steps N]

Parts: `article` (the whole pipeline against the article's script), `steps` (a training step against
stock Keras, PyTorch and the machine's own rate of multiplying), `scale` (1, 10 and 100 MB of text),
`fixed` (what starting costs), `experiments` (an epoch of each experiment that the README names),
`workers` (one process against two that train together, two trainings at once). Every side runs in
processes of its own. Prints Markdown tables: medians over the turns, ratios of the turns with the
smallest and the largest.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import workers
from tests.benchmarks.measure import column, machine, measured, middle, ratio, table
from tests.benchmarks.steps import ARTICLE_FLOPS, cores
from tests.conftest import ROOT, changed_params, copy_of_the_project, make_text

VECTORIZE_ALONE = """
import json, sys, time
from pathlib import Path
from stages.params import read_params
from stages.text import read_text
from stages.vectorize import vectorize
from stages.windows import save_windows
settings = read_params().vectorize
began = time.perf_counter()
windows = vectorize(read_text(Path("data/corpus.txt"), True, True), settings)
with open("windows-alone.npz", "wb") as file:
    save_windows(file, windows, False)
print(json.dumps(time.perf_counter() - began))
"""

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


def project(folder: Path, corpus: Path | None = None, **changes: Any) -> Path:
    """A copy of the project with a text of its own, in a git repository of its own."""
    copy_of_the_project(folder)
    if corpus:
        shutil.copy(corpus, folder / "book.txt")
    tree = changed_params(download__corpus="book.txt", download__max_bytes=10**9, **changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@example.invalid"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    return folder


def last_json(output: str) -> Any:
    """What a worker printed on its last line."""
    return json.loads(output.splitlines()[-1])


def turn_of_the_article(corpus: Path, epochs: int) -> dict[str, float]:
    """The article's script once."""
    wall, memory, output = measured(["-m", "tests.benchmarks.article", str(corpus), str(epochs)])
    clock = last_json(output)["seconds"]
    parts = {"train": clock["fit"] / epochs, "generate": clock["generate"] / epochs}
    return {
        "vectorize": clock["vectorize"],
        **parts,
        "all": wall,
        "forty": wall + (40 - epochs) * sum(parts.values()),
        "memory": memory,
    }


def turn_of_the_pipeline(corpus: Path, epochs: int) -> dict[str, float]:
    """`dvc repro`, from nothing, in a project of its own; a stage at a time, for its peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch), corpus, train__epochs=epochs)
        done = {
            stage: measured(["-m", "dvc", "repro", stage], folder)
            for stage in ("vectorize", "train", "sample")
        }
        vectorize = float(measured(["-c", VECTORIZE_ALONE], folder).output)
        generate = float(measured(["-c", GENERATION_ALONE], folder).output)
    epoch_lines = [line for line in done["train"].output.splitlines() if line.startswith("epoch ")]
    train = statistics.mean(float(line.split("; ")[1].split(" s")[0]) for line in epoch_lines)
    wall = sum(each.seconds for each in done.values())
    return {
        "vectorize": vectorize,
        "train": train,
        "generate": generate,
        "all": wall,
        "forty": wall + (40 - epochs) * (train + generate),
        "memory": max(each.megabytes for each in done.values()),
        "memory of train": done["train"].megabytes,
        "memory of sample": done["sample"].megabytes,
    }


def against_the_article(corpus: Path, epochs: int, turns: int) -> None:
    """The whole pipeline and the article's script, in turn."""
    articles, pipelines = [], []
    for turn in range(turns):
        articles.append(turn_of_the_article(corpus, epochs))
        pipelines.append(turn_of_the_pipeline(corpus, epochs))
        for name, clock in (("article", articles[-1]), ("pipeline", pipelines[-1])):
            print(turn + 1, name, {what: round(value, 3) for what, value in clock.items()}, flush=True)
    named = {
        "vectorize": "text to tensors, s",
        "train": "an epoch of training, s",
        "generate": "an epoch's 1,600 characters, s",
        "all": f"{epochs} epochs, `dvc repro sample` from nothing, s",
        "forty": "40 epochs, extrapolated from these, s",
        "memory": "peak memory of the largest process, MB",
    }
    rows = []
    for what, name in named.items():
        ours, theirs = column(pipelines, what), column(articles, what)
        rows.append((name, middle(theirs), middle(ours), ratio(theirs, ours)))
    table(
        f"Against the article's script ({corpus.name}, {corpus.stat().st_size:,} bytes; {turns} turns)",
        ("", "article's script", "pipeline", "ratio (of the turns)"),
        rows,
    )
    for stage in ("train", "sample"):
        print(f"peak memory of {stage}: {middle(column(pipelines, f'memory of {stage}'))} MB")


def steps_in_turn(steps: int, turns: int) -> None:
    """Training steps of each kind and the machine's products, in turn."""
    kinds = ["pipeline", "fit", "torch", "mixed_bfloat16", "as it comes"]
    if not find_spec("torch"):
        kinds.remove("torch")
        print("torch is not installed: left out")
    kinds += ["products of the batch", "products of streams"]
    clocks: list[dict[str, dict[str, float]]] = []
    for turn in range(turns):
        clocks.append({})
        for kind in kinds:
            done = measured(["-m", "tests.benchmarks.steps", kind, str(steps)])
            clocks[-1][kind] = {**last_json(done.output), "memory": done.megabytes}
        speeds = {kind: clock.get("windows_per_second", 0) for kind, clock in clocks[-1].items()}
        print(turn + 1, {kind: round(speed) for kind, speed in speeds.items() if speed}, flush=True)

    def speed_of(kind: str) -> list[float]:
        return [clock[kind]["windows_per_second"] for clock in clocks]

    def memory_of(kind: str) -> str:
        return middle([clock[kind]["memory"] for clock in clocks])

    named = {
        "pipeline": "pipeline",
        "fit": "stock Keras `fit`",
        "torch": "PyTorch `nn.LSTM`",
        "mixed_bfloat16": "pipeline, `train.precision: mixed_bfloat16`",
        "as it comes": "pipeline's step, determinism off",
    }
    rows = [
        (
            named[kind],
            middle(speed_of(kind)),
            ratio(speed_of("pipeline"), speed_of(kind)) if kind != "pipeline" else "",
            memory_of(kind),
        )
        for kind in kinds
        if kind in named
    ]
    table(
        f"Training steps ({steps} of 1,024 windows; {turns} turns)",
        ("", "windows/s", "pipeline is faster by (of the turns)", "peak memory, MB"),
        rows,
    )
    rates = [
        max(clock[f"products of {what}"]["flops_per_second"] for what in ("the batch", "streams"))
        for clock in clocks
    ]
    shares = [s * ARTICLE_FLOPS / rate for s, rate in zip(speed_of("pipeline"), rates, strict=True)]
    print(f"matrix products alone, float32: {middle([rate / 1e9 for rate in rates])} GFLOP/s")
    print(
        f"the pipeline does the article's {ARTICLE_FLOPS * 1024 / 1e9:.1f} GFLOP of a step at "
        f"{statistics.median(shares):.0%} of that rate ({min(shares):.0%} to {max(shares):.0%})"
    )
    outside = [clock["pipeline"]["outside_the_step"] for clock in clocks]
    print(f"outside the compiled step: {statistics.median(outside):.2%} of the time")


def named_experiments() -> dict[str, dict[str, Any]]:
    """What the README's commands queue: for each experiment its parameters, as `section__key`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- experiments -->\n```bash\n")[1].split("```")[0]
    said = subprocess.run(
        ["bash", "-c", 'dvc() { echo "$@"; }\n' + block], check=True, capture_output=True, text=True
    ).stdout
    experiments = {}
    for line in said.splitlines():
        words = line.split()
        if "--name" in words:
            pairs = [word.split("=") for word in words if "=" in word]
            experiments[words[words.index("--name") + 1]] = {
                name.replace(".", "__"): yaml.safe_load(value) for name, value in pairs
            }
    return experiments


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


def experiments_in_turn(corpus: Path, turns: int) -> None:
    """An epoch of each of the README's experiments."""
    named = named_experiments()
    epochs = {name: settings.get("train__epochs", 40) for name, settings in named.items()}
    clocks = epochs_in_turn(corpus, named, turns)
    seconds = {name: column(each, "seconds") for name, each in clocks.items()}
    whole = {name: [each * epochs[name] for each in seconds[name]] for name in named}
    article = next(iter(named))
    rows = [
        (name, str(epochs[name]), middle(seconds[name]), ratio(whole[name], whole[article]))
        for name in named
    ]
    table(
        f"Experiments ({corpus.name}, {turns} turns)",
        ("", "epochs", "an epoch, s", "training time, of the first one's (of the turns)"),
        rows,
    )


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


def at_scale(turns: int) -> None:
    """1, 10 and 100 MB of text: vectorize, then batches at random out of what it wrote."""
    block = make_text(1_000_000)
    found: dict[int, list[dict[str, float]]] = {1: [], 10: [], 100: []}
    for _ in range(turns):
        for megabytes, clocks in found.items():
            with tempfile.TemporaryDirectory() as scratch:
                folder = project(Path(scratch))
                (folder / "data").mkdir(exist_ok=True)
                with open(folder / "data/corpus.txt", "w", encoding="utf-8") as file:
                    file.writelines(block for _ in range(megabytes))
                vectorized = measured(["-m", "stages.vectorize"], folder)
                trained = measured(["-m", "tests.benchmarks.scale", "20"], folder)
            clock = last_json(trained.output)
            clocks.append(
                clock
                | {
                    "vectorize": vectorized.seconds,
                    "memory of vectorize": vectorized.megabytes,
                    "windows per second": clock["drawn"] / (clock["draw"] + clock["train"]),
                    "before": (clock["open"] + clock["order"]) / clock["windows"] * 1e9,
                    "draw of one": clock["draw"] / clock["drawn"] * 1e9,
                }
            )
            print(megabytes, "MB", {k: round(v, 4) for k, v in clocks[-1].items()}, flush=True)
    rows = [
        ("`vectorize`, start-up included, s", "vectorize"),
        ("its peak memory, MB", "memory of vectorize"),
        ("`data/windows.npz`, MB", "file_megabytes"),
        ("`train`: open, check and order the windows, ns each", "before"),
        ("a batch out of it, ns a window", "draw of one"),
        ("windows/s in training", "windows per second"),
        ("memory that it takes for the windows and the model, MB", "held_megabytes"),
    ]
    table(
        f"Scale ({turns} turns)",
        ("text", *(f"{megabytes} MB" for megabytes in found)),
        [(name, *(middle(column(clocks, what)) for clocks in found.values())) for name, what in rows],
    )


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


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parts = ["article", "steps", "scale", "fixed", "experiments", "workers"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--turns", type=int, default=5, help="how often each side runs (5)")
    parser.add_argument(
        "--corpus", type=Path, help="a text file (default: data/corpus.txt, or made-up text)"
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each side in a turn (2)")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps in a run (60)")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or ROOT / "data/corpus.txt"
        if not corpus.is_file():
            corpus = Path(scratch, "made-up.txt")
            corpus.write_text(make_text(600_893), encoding="utf-8")
        if "fixed" in options.parts:
            fixed_costs(options.turns)
        if "steps" in options.parts:
            steps_in_turn(options.steps, options.turns)
        if "scale" in options.parts:
            at_scale(min(options.turns, 3))
        if "experiments" in options.parts:
            experiments_in_turn(corpus.resolve(), min(options.turns, 3))
        if "workers" in options.parts:
            workers_in_turn(corpus.resolve(), min(options.turns, 3))
        if "article" in options.parts:
            against_the_article(corpus.resolve(), options.epochs, options.turns)


if __name__ == "__main__":
    main()
