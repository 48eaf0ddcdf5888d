"""Training at every position against PyTorch and the machine's matrix products, in turn."""

from importlib.util import find_spec

from benchmarks.measure import measured, middle, ratio, table
from benchmarks.projects import last_json

UNITS = (128, 256, 512)


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
                command = ["-m", "benchmarks.sequences", kind, str(units), str(max(8, steps * 128 // units))]
                done = measured(command, CUDA_VISIBLE_DEVICES="-1")
                speeds[kind].append(last_json(done.output)["characters_per_second"])
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
