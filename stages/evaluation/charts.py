"""Charts of the report page, as Vega-Lite specifications."""

from collections.abc import Sequence
from typing import Any

from stages.common.history import Metrics, best_epoch, parts

QUALITIES = {
    "known_words": ("Known words: words that occur in the text", "share of words"),
    "novelty_8": ("8-gram novelty: 8-grams that do not occur in the text", "share of 8-grams"),
    "longest_copy": ("Longest passage copied from the text", "characters"),
    "distinct_3": ("Distinct 3-grams", "share of 3-grams"),
}
# distinguishable for the colour-blind too, with a contrast of 3 : 1 on a white and on a dark page
COLORS = ["#3b7fc4", "#c2620e", "#2a8f60", "#b0559f", "#857a1f", "#c0504d"]
FEW = 8  # epochs that each get a tick
DASHES = [[1, 0], [7, 3], [2, 2], [10, 3, 2, 3], [4, 4], [1, 3]]


def loss_chart(history: Sequence[Metrics], ngram: Metrics | None, targets: str) -> dict[str, Any]:
    """Draw the training and validation loss of each epoch, and the n-gram baseline as a level line.

    Args:
        history: the metrics of each epoch.
        ngram: the best n-gram model, None without a validation split.
        targets: `train.targets`.

    Returns:
        title, summary (a sentence for screen readers) and spec (Vega-Lite).
    """
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "value": metrics[f"{prefix}loss"], "series": part}
        for prefix, part in parts(targets).items()
        for epoch, metrics in enumerate(history)
        if f"{prefix}loss" in metrics
    ]
    summary = f"Training loss, from {history[0]['loss']:.3f} in epoch 0 to {history[-1]['loss']:.3f} in "
    summary += f"epoch {len(history) - 1}"
    best = best_epoch(history)
    if best is not None:
        summary += f"; validation loss, lowest in epoch {best}, {history[best]['val_loss']:.3f}"
    level = None
    if ngram is not None:
        level = (ngram["val_loss"], f"{ngram['n']}-gram, validation")
        summary += f"; the {ngram['n']}-gram baseline has {ngram['val_loss']:.3f}"
    series = list(dict.fromkeys(row["series"] for row in rows))
    spec = lines(rows, series, "mean cross-entropy, nats", "loss", level, zero=False)
    return {"title": "Loss", "summary": summary, "spec": spec}


def quality_charts(quality: Sequence[dict[str, str]], temperatures: Sequence[float]) -> list[dict[str, Any]]:
    """Draw each metric of the samples, with a line for each temperature.

    Args:
        quality: rows of `metrics/quality.tsv`.
        temperatures: the sampling temperatures, in order.

    Returns:
        Charts as `loss_chart` returns.
    """
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
    styles: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Build a Vega-Lite specification in the page's colours: `value` by `epoch`, a line for each series.

    The page's slider sets the parameter `epoch`, which a vertical line marks. Where the rows have a
    `temperature`, only those of the parameter `temperature` are drawn.

    Args:
        rows: epoch, value and series of each point.
        series: their names, in order.
        unit: the title of the vertical axis.
        legend: the title of the legend.
        level: a value and its name, drawn as a horizontal line; None for none.
        zero: whether the vertical axis begins at 0.
        styles: numbers of the colour and the dashes of each series; None for those of its own number.

    Returns:
        The specification.
    """
    import altair as alt

    styles = styles or [(number, number) for number in range(len(series))]
    colors = [COLORS[color % len(COLORS)] for color, _ in styles]
    dashes = [DASHES[dash % len(DASHES)] for _, dash in styles]
    epochs = sorted({row["epoch"] for row in rows})
    # Vega would put ticks between few epochs, and label them with the next one
    ticks = {"values": epochs} if len(epochs) <= FEW else {"tickMinStep": 1}
    epoch = alt.X("epoch:Q", title="epoch", axis=alt.Axis(format="d", **ticks))
    value = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=zero))
    values = list({row["value"] for row in rows})
    if len(values) == 1 and level is None and not zero:  # Vega would label it with a whole number
        value = value.axis(values=values, format=".4g")
    symbols = alt.Legend(title=legend, symbolType="stroke", symbolSize=400, symbolStrokeWidth=2)
    color = alt.Color("series:N", legend=symbols, scale=alt.Scale(domain=series, range=colors))
    dash = alt.StrokeDash("series:N", legend=symbols, scale=alt.Scale(domain=series, range=dashes))
    base = alt.Chart(alt.Data(values=rows))
    choices = [alt.param(name="epoch", value=max(epochs))]
    if "temperature" in rows[0]:
        choices.append(alt.param(name="temperature", value=rows[0]["temperature"]))
        base = base.transform_filter("datum.temperature === temperature")
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
        "legend": {
            "labelColor": "currentColor",
            "titleColor": "currentColor",
            "orient": "bottom",
            "columnPadding": 20,
        },
        "view": {"stroke": None},
        "background": "transparent",
        "font": "inherit",
    }
    chart = alt.layer(*layers).properties(width="container", height=220)
    return chart.add_params(*choices).to_dict() | {"config": in_page_colors}
