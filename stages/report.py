"""Stage `report`: one page to look at, `metrics/report.html`, that needs no network and no server.

The loss, the quality of the samples, and the samples themselves with a slider for the epoch, so that one
can watch the model learn to write. Charts by Vega-Altair, its JavaScript part of the page.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.errors import StageError, run_stage
from stages.figures import best_epoch
from stages.files import write_bytes_whole
from stages.layout import (
    BASELINE_METRICS,
    CORPUS_METRICS,
    QUALITY_FILE,
    REPORT_FILE,
    SAMPLES_FILE,
    TRAIN_DIR,
    VECTORIZE_METRICS,
)
from stages.params import Params, read_params

TEMPLATE = Path("stages/report.html.j2")
LOSSES = {"loss": "training", "val_loss": "held out"}
QUALITIES = {
    "known_words": ("Words that occur in the text", "share of words"),
    "novelty_8": ("Runs of 8 characters that do not occur in the text", "share of runs"),
    "longest_copy": ("Longest passage copied from the text", "characters"),
    "distinct_3": ("Runs of 3 characters that are different ones", "share of runs"),
}
# apart from each other also for the colour-blind, and 3 : 1 against both a white and a dark page
COLORS = ["#3b7fc4", "#c2620e", "#2a8f60", "#b0559f", "#857a1f", "#c0504d"]
DASHES = [[1, 0], [7, 3], [2, 2], [10, 3, 2, 3], [4, 4], [1, 3]]


def main() -> None:
    """Read what the other stages wrote about the run, draw it, write the page."""
    params = read_params()
    samples = [json.loads(line) for line in _text_of(SAMPLES_FILE).splitlines()]
    quality = list(csv.DictReader(_text_of(QUALITY_FILE).splitlines(), delimiter="\t"))
    losses = losses_of_epochs(_text_of(TRAIN_DIR / "losses.tsv"))
    corpus, windows, baseline = (
        json.loads(_text_of(path)) for path in (CORPUS_METRICS, VECTORIZE_METRICS, BASELINE_METRICS)
    )
    page = report(params, samples, quality, losses, corpus | windows, baseline.get("ngram"))
    write_bytes_whole(REPORT_FILE, page.encode())
    print(f"{len(losses)} epochs, {len(samples)} samples, {len(page) / 1e6:.1f} MB: {REPORT_FILE}")


def _text_of(path: Path) -> str:
    """A file that another stage wrote."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro` makes it") from None


def losses_of_epochs(table: str) -> list[dict[str, float]]:
    """For each epoch, the figures that `train` wrote into `losses.tsv`, by the names they have there."""
    losses: list[dict[str, float]] = []
    for row in csv.DictReader(table.splitlines(), delimiter="\t"):
        if row["part"] == "training":
            losses.append({})
        prefix = "" if row["part"] == "training" else "val_"
        losses[-1] |= {prefix + name: float(row[name]) for name in ("loss", "bits_per_char")}
    return losses


def report(
    params: Params,
    samples: Sequence[dict[str, Any]],
    quality: Sequence[dict[str, str]],
    losses: Sequence[dict[str, float]],
    corpus: dict[str, Any],
    ngram: dict[str, Any] | None,
) -> str:
    """The page. The same arguments give the same text.

    samples: lines of samples.jsonl; quality: rows of quality.tsv; losses: figures by epoch; corpus:
    figures of the text and its windows; ngram: of the n-gram model, None where nothing is held out.
    """
    import jinja2
    import vl_convert

    epochs = [int(epoch) for epoch in dict.fromkeys(sample["epoch"] for sample in samples)]
    temperatures = list(dict.fromkeys(sample["temperature"] for sample in samples))
    figures = {(int(row["epoch"]), float(row["temperature"])): row for row in quality}
    by_temperature = [
        [
            {
                "prompt": sample["prompt"],
                "text": sample["text"],
                **{name: float(figures[sample["epoch"], temperature][name]) for name in QUALITIES},
            }
            for sample in samples
            if sample["temperature"] == temperature
        ]
        for temperature in temperatures
    ]
    charts = [loss_chart(losses, ngram), *quality_charts(quality, temperatures)]
    javascript = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_text_of(TEMPLATE)).render(
        charts=charts,
        corpus=corpus,
        epochs=epochs,
        best=best_epoch(losses),
        model=params.model,
        train=params.train,
        javascript=javascript.replace("</script", r"<\/script"),
        last=losses[-1],
        losses=losses,
        ngram=ngram,
        names=list(losses[0]),
        parameters=[
            (f"{section}.{name}", value if isinstance(value, str) else json.dumps(value))
            for section in ("vectorize", "model", "train", "sample")
            for name, value in getattr(params, section).model_dump().items()
        ],
        samples=by_temperature,
        shown={"epochs": epochs, "losses": losses, "samples": by_temperature},
        temperatures=temperatures,
    )


def loss_chart(losses: Sequence[dict[str, float]], ngram: dict[str, Any] | None) -> dict[str, Any]:
    """The loss of each epoch, in training and held out, with the n-gram model's as a level line."""
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "value": figures[name], "series": series}
        for name, series in LOSSES.items()
        for epoch, figures in enumerate(losses)
        if name in figures
    ]
    summary = f"Training loss, from {losses[0]['loss']:.3f} in epoch 0 to {losses[-1]['loss']:.3f} in "
    summary += f"epoch {len(losses) - 1}"
    best = best_epoch(losses)
    if best is not None:
        summary += f"; held-out loss, at its lowest in epoch {best}, {losses[best]['val_loss']:.3f}"
    level = None
    if ngram is not None:
        level = (ngram["val_loss"], f"{ngram['n']}-gram, held out")
        summary += f"; a plain {ngram['n']}-gram model has {ngram['val_loss']:.3f}"
    series = list(dict.fromkeys(row["series"] for row in rows))
    chart = lines(rows, series, "mean cross-entropy, nats", "loss", level, zero=False)
    return {"title": "Loss", "summary": summary, "spec": chart}


def quality_charts(
    quality: Sequence[dict[str, str]], temperatures: Sequence[float]
) -> list[dict[str, Any]]:
    """A chart for each figure of the samples, a line for each temperature."""
    charts = []
    for name, (title, unit) in QUALITIES.items():
        rows = [
            {"epoch": int(row["epoch"]), "value": float(row[name]), "series": row["temperature"]}
            for row in quality
        ]
        last = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
        summary = f"{title}; in the last epoch "
        summary += ", ".join(f"{row['value']:g} at temperature {row['series']}" for row in last)
        spec = lines(rows, [str(t) for t in temperatures], unit, "temperature", None, zero=True)
        charts.append({"title": title, "summary": summary, "spec": spec})
    return charts


def lines(
    rows: list[dict[str, Any]],
    series: list[str],
    unit: str,
    legend: str,
    level: tuple[float, str] | None,
    zero: bool,
) -> dict[str, Any]:
    """A Vega-Lite specification: `value` by `epoch`, a line for each of `series`, in the page's colours.

    level: a value and its name, drawn across; zero: whether the axis begins there. The page's slider sets
    the parameter `epoch`, where an upright line stands.
    """
    import altair as alt

    colors = [COLORS[number % len(COLORS)] for number in range(len(series))]
    dashes = [DASHES[number % len(DASHES)] for number in range(len(series))]
    epoch = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"))
    value = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=zero))
    symbols = alt.Legend(title=legend, symbolType="stroke", symbolSize=400, symbolStrokeWidth=2)
    color = alt.Color("series:N", legend=symbols, scale=alt.Scale(domain=series, range=colors))
    dash = alt.StrokeDash("series:N", legend=symbols, scale=alt.Scale(domain=series, range=dashes))
    base = alt.Chart(alt.Data(values=rows))
    layers: list[Any] = [
        base.mark_line(point={"size": 14}).encode(
            epoch,
            value,
            color,
            dash,
            tooltip=[
                alt.Tooltip("series:N", title=legend),
                alt.Tooltip("epoch:Q"),
                alt.Tooltip("value:Q", title=unit, format=".4g"),
            ],
        ),
        alt.Chart(alt.Data(values=[{"at": 0}]))
        .transform_calculate(at="epoch")
        .mark_rule(color="currentColor", opacity=0.5)
        .encode(x="at:Q"),
    ]
    if level is not None:
        at = alt.Chart(alt.Data(values=[{"value": level[0], "name": level[1]}])).encode(y="value:Q")
        layers.append(at.mark_rule(color="currentColor", strokeDash=[6, 4]))
        layers.append(
            at.mark_text(align="right", baseline="bottom", dy=-3, color="currentColor").encode(
                x=alt.value("width"), text="name:N"
            )
        )
    in_page_colors = {
        "axis": {
            "labelColor": "currentColor",
            "titleColor": "currentColor",
            "domainColor": "currentColor",
            "tickColor": "currentColor",
            "gridColor": "currentColor",
            "gridOpacity": 0.15,
        },
        "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "orient": "bottom"},
        "view": {"stroke": None},
        "background": "transparent",
        "font": "inherit",
    }
    chart = alt.layer(*layers).properties(width="container", height=220)
    chart = chart.add_params(alt.param(name="epoch", value=max(row["epoch"] for row in rows)))
    return chart.to_dict() | {"config": in_page_colors}


if __name__ == "__main__":
    run_stage(main)
