"""Training steps against stock Keras and PyTorch, and against the machine's matrix products, in turn."""

import statistics
from importlib.util import find_spec

from benchmarks.measure import measured, middle, ratio, table
from benchmarks.projects import last_json
from benchmarks.steps import ARTICLE_FLOPS


def steps_in_turn(steps: int, turns: int) -> None:
    """Training steps of each kind and the machine's products, in turn."""
    kinds = ["pipeline", "fit", "torch", "mixed_bfloat16", "as it comes"]
    if not find_spec("torch"):
        kinds.remove("torch")
        print("torch is not installed: left out")
    kinds += ["products of the batch", "products of microbatches"]
    clocks: list[dict[str, dict[str, float]]] = []
    for turn in range(turns):
        clocks.append({})
        for kind in kinds:
            done = measured(["-m", "benchmarks.steps", kind, str(steps)], CUDA_VISIBLE_DEVICES="-1")
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
        max(clock[f"products of {what}"]["flops_per_second"] for what in ("the batch", "microbatches"))
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
