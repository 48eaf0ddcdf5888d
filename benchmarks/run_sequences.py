"""Training at every position against PyTorch, the machine's matrix products, and autodiff, in turn."""

from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.measure import measured, middle, ratio, table
from benchmarks.projects import last_json

UNITS = (128, 256, 512)
# of 256 units each
MODELS: dict[str, list[str]] = {
    "one LSTM layer": [],
    "two LSTM layers, embedding, dropout": ["model.layers=2", "model.embedding=128", "model.dropout=0.2"],
    "GRU": ["model.cell=gru"],
    "simple recurrent layer": ["model.cell=rnn"],
    "two LSTM layers, last position only": ["model.layers=2", "train.targets=last"],
}


def sequences_in_turn(steps: int, turns: int) -> None:
    """The pipeline in both precisions, PyTorch and the products, for each number of units."""
    kinds = ["float32", "mixed_bfloat16", "torch", "products"]
    if not find_spec("torch"):
        kinds.remove("torch")
        print("torch is not installed: left out")
    rows = []
    for units in UNITS:
        speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(turns):
            for kind in kinds:
                speeds[kind].append(speed(kind, units, max(8, steps * 128 // units)))
            print(units, turn + 1, {kind: round(each[-1]) for kind, each in speeds.items()}, flush=True)
        torch = speeds.get("torch")
        rows.append(
            (
                str(units),
                *(middle(speeds[kind]) if kind in speeds else "" for kind in kinds),
                ratio(speeds["float32"], torch) if torch else "",
                ratio(speeds["mixed_bfloat16"], torch) if torch else "",
                ratio(speeds["float32"], speeds["products"]),
            )
        )
    table(
        f"Training at every position (64 windows of 40; {turns} turns), characters a second",
        ("units", *kinds, "float32 / torch", "bfloat16 / torch", "float32 / products"),
        rows,
    )
    rows = []
    for name, others in MODELS.items():
        speeds = {"float32": [], "autodiff": []}
        for _ in range(turns):
            for kind, each in speeds.items():
                each.append(speed(kind, 256, max(8, steps // 2), others))
        print(name, {kind: [round(x) for x in each] for kind, each in speeds.items()}, flush=True)
        fused, autodiff = speeds.values()
        rows.append((name, middle(fused), middle(autodiff), ratio(fused, autodiff)))
    table(
        f"The fused step and autodiff (256 units, {turns} turns), characters a second",
        ("model", "fused", "autodiff", "ratio"),
        rows,
    )


def speed(kind: str, units: int, steps: int, others: Sequence[str] = ()) -> float:
    """Characters a second of a process."""
    command = ["-m", "benchmarks.sequences", kind, str(units), str(steps), *others]
    return last_json(measured(command, CUDA_VISIBLE_DEVICES="-1").output)["characters_per_second"]
