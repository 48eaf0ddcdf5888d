"""1, 10 and 100 MB of text."""

import tempfile
from pathlib import Path

from benchmarks.measure import column, measured, middle, table
from benchmarks.projects import last_json, project
from tests.support import make_text

SAMPLES = [
    {"epoch": at // 4, "temperature": at % 4, "prompt": " ", "text": make_text(400, seed=at)}
    for at in range(160)
]
MEASURE_SAMPLES = """
from benchmarks.run_scale import SAMPLES
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE
from stages.evaluation.sample_metrics import quality_table
from stages.text.normalization import read_pieces

quality_table(read_pieces(CORPUS_FILE, read_params().vectorize), SAMPLES)
"""


def at_scale(turns: int) -> None:
    """1, 10 and 100 MB of text: vectorize, metrics of samples, then batches at random out of the windows."""
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
                quality = measured(["-c", MEASURE_SAMPLES], folder)
                trained = measured(["-m", "benchmarks.scale", "20"], folder)
            clock = last_json(trained.output)
            clocks.append(
                clock
                | {
                    "vectorize": vectorized.seconds,
                    "memory of vectorize": vectorized.megabytes,
                    "memory of metrics": quality.megabytes,
                    "windows per second": clock["drawn"] / (clock["draw"] + clock["train"]),
                    "before": (clock["open"] + clock["order"]) / clock["windows"] * 1e9,
                    "draw of one": clock["draw"] / clock["drawn"] * 1e9,
                }
            )
            print(megabytes, "MB", {k: round(v, 4) for k, v in clocks[-1].items()}, flush=True)
    rows = [
        ("`vectorize`, start-up included, s", "vectorize"),
        ("its peak memory, MB", "memory of vectorize"),
        ("peak memory of the metrics of 160 samples, MB", "memory of metrics"),
        ("`data/windows.npz`, MB", "file_megabytes"),
        ("`train`: open, check and order the windows, ns each", "before"),
        ("a batch out of it, ns a window", "draw of one"),
        ("windows/s in training", "windows per second"),
        ("memory that it takes for the windows and the model, MB", "own_megabytes"),
    ]
    table(
        f"Scale ({turns} turns)",
        ("text", *(f"{megabytes} MB" for megabytes in found)),
        [(name, *(middle(column(clocks, what)) for clocks in found.values())) for name, what in rows],
    )
