"""The page that shows several runs side by side."""

from collections.abc import Sequence
from typing import Any

from stages.common.history import best_epoch, parts
from stages.evaluation.charts import QUALITIES, lines
from stages.evaluation.page import render_template, with_metrics
from stages.evaluation.runs import Run

# what decides which characters a loss is of, besides the corpus; another step leaves them comparable
OF_THE_TEXT = ("lowercase", "newlines_to_spaces", "validation")
MISSING = "–"


def render_comparison(runs: Sequence[Run]) -> str:
    """Render the page. Equal runs give an equal page.

    Args:
        runs: one or more, each with at least one epoch and one sample.

    Returns:
        The HTML.
    """
    temperatures = sorted({float(sample["temperature"]) for run in runs for sample in run.samples})
    epochs = sorted({int(sample["epoch"]) for run in runs for sample in run.samples})
    # the page begins with what most runs have a sample of: the last such epoch, the first temperature
    kept = [{(sample["epoch"], sample["temperature"]) for sample in run.samples} for run in runs]
    begin = max(
        ((epoch, temperature) for epoch in epochs for temperature in temperatures),
        key=lambda at: (sum(at in each for each in kept), at[0], -at[1]),
    )
    texts = {(run.corpus, *(run.params.get(f"vectorize.{name}") for name in OF_THE_TEXT)) for run in runs}
    return render_template(
        "compare.html.j2",
        runs=runs,
        differences=differences(runs),
        results=results(runs),
        same_text=len(texts) == 1,
        temperatures=temperatures,
        epochs=epochs,
        begin={"epoch": epochs.index(begin[0]), "temperature": temperatures.index(begin[1])},
        qualities=list(QUALITIES),
        charts=[compared_losses(runs), *compared_qualities(runs)],
        shown={
            "epochs": epochs,
            "temperatures": temperatures,
            "samples": [samples_with_metrics(run, temperatures) for run in runs],
        },
    )


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """List the parameters that are not the same in all runs, with the value of each."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    rows = [(name, [run.params.get(name, MISSING) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def results(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """List what the runs came to, a row for each result that any of them has."""
    rows: dict[str, list[str]] = {}

    def add(name: str, number: int, value: str) -> None:
        rows.setdefault(name, [MISSING] * len(runs))[number] = value

    for number, run in enumerate(runs):
        add("corpus", number, run.corpus)
        add("epochs", number, str(len(run.history)))
        for prefix, part in parts(run.targets).items():
            if f"{prefix}loss" in run.history[-1]:
                add(f"last loss, {part}", number, f"{run.history[-1][f'{prefix}loss']:.4f}")
        best = best_epoch(run.history)
        if best is not None:
            metrics = run.history[best]
            add("lowest validation loss", number, f"{metrics['val_loss']:.4f} in epoch {best}")
            add("its bits per character", number, f"{metrics['val_bits_per_char']:.4f}")
        if run.ngram is not None:
            add("n-gram baseline", number, f"{run.ngram['val_loss']:.4f} ({run.ngram['n']}-gram)")
    return list(rows.items())


def compared_losses(runs: Sequence[Run]) -> dict[str, Any]:
    """Draw the losses of all runs: a colour for each run, dashes for each part of the text.

    Args:
        runs: the runs.

    Returns:
        A chart as `loss_chart` returns.
    """
    rows, styles = [], {}
    for number, run in enumerate(runs):
        for prefix, part in parts(run.targets).items():
            values = [metrics.get(f"{prefix}loss") for metrics in run.history]
            if values[0] is not None:
                series = f"{run.name}, {part}"
                styles[series] = (number, list(parts("all").values()).index(part) if prefix else 0)
                rows += [
                    {"epoch": epoch, "value": value, "series": series} for epoch, value in enumerate(values)
                ]
    spec = lines(rows, list(styles), "mean cross-entropy, nats", "run", None, False, list(styles.values()))
    last = {row["series"]: row["value"] for row in rows}
    of_each = ", ".join(f"{value:.3f} ({name})" for name, value in last.items())
    summary = f"Losses, in the last epoch {of_each}"
    return {"title": "Loss", "summary": summary, "spec": spec}


def compared_qualities(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Draw each metric of the samples, a line for each run, at the temperature that the page sets.

    Args:
        runs: the runs.

    Returns:
        Charts as `loss_chart` returns.
    """
    charts = []
    for name, (title, unit) in QUALITIES.items():
        rows = [
            {
                "epoch": int(row["epoch"]),
                "value": float(row[name]),
                "series": run.name,
                "temperature": float(row["temperature"]),
            }
            for run in runs
            for row in run.quality
        ]
        spec = lines(rows, [run.name for run in runs], unit, "run", None, zero=True)
        summary = f"{title}, by epoch, a line for each run; the numbers stand below each sample"
        charts.append({"title": title, "summary": summary, "spec": spec})
    return charts


def samples_with_metrics(run: Run, temperatures: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Collect a run's samples with their metrics, by the epoch and the temperature's number."""
    return {
        f"{epoch} {temperatures.index(temperature)}": each
        for (epoch, temperature), each in with_metrics(run.samples, run.quality).items()
    }
