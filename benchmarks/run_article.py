"""The whole pipeline against the article's script, in turn."""

import statistics
import tempfile
from pathlib import Path

from benchmarks.measure import column, measured, middle, ratio, table
from benchmarks.projects import last_json, project

VECTORIZE_ALONE = """
import json, sys, time
from pathlib import Path
from stages.common.params import read_params
from stages.text.normalization import read_text
from stages.text.windows import make_windows
from stages.text.windows_file import save_windows
settings = read_params().vectorize
began = time.perf_counter()
windows = make_windows(read_text(Path("data/corpus.txt"), settings), settings)
with open("windows-alone.npz", "wb") as file:
    save_windows(file, windows, False)
print(json.dumps(time.perf_counter() - began))
"""


GENERATION_ALONE = """
import json, time
from pathlib import Path
from stages.training.device import set_up_tensorflow
set_up_tensorflow("cpu")
from stages.model.generator import Generator, uniform_draws
from stages.model.architecture import build_model
from stages.training.checkpoints import checkpoint_files, read_checkpoint
from stages.text.vocabulary_file import read_model_text
checkpoint = read_checkpoint(list(checkpoint_files().values())[-1])
prompt = read_model_text(Path("models")).encode(None, "")
model = build_model(**checkpoint.model)
model.set_weights(checkpoint.weights)
temperatures = [0.2, 0.5, 1.0, 1.2]
generator = Generator(model, temperatures, 400)
def once(epoch):
    began = time.perf_counter()
    generator(prompt, uniform_draws(0, epoch, temperatures, 400))
    return time.perf_counter() - began
once(0)
print(json.dumps(sorted(once(epoch) for epoch in range(9))[4]))
"""


def turn_of_the_article(corpus: Path, epochs: int) -> dict[str, float]:
    """The article's script once."""
    wall, memory, output = measured(["-m", "benchmarks.article", str(corpus), str(epochs)])
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
