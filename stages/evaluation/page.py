"""The report page: one HTML file that needs no network and no server."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.history import Metrics, best_epoch
from stages.common.params import Params, as_text
from stages.evaluation.charts import QUALITIES, loss_chart, quality_charts
from stages.evaluation.surprise import Score, page_section
from stages.evaluation.terms import TERMS
from stages.evaluation.writer import Writer

FOLDER = Path(__file__).parent
SECTIONS = ("vectorize", "model", "train", "sample", "report")
# the page is the same on any number of cores and workers
NOT_SHOWN = {"train.cores", "train.workers", "train.worker_timeout"}
HASHES = "HASHES-OF-THE-SCRIPTS"  # in the template's content security policy


def render(
    params: Params,
    samples: Sequence[dict[str, Any]],
    quality: Sequence[dict[str, str]],
    history: Sequence[Metrics],
    corpus: dict[str, Any],
    ngram: Metrics | None,
    device: str,
    test_loss: float | None,
    score: Score,
    writer: Writer,
) -> str:
    """Render the page. Equal arguments give an equal page.

    Args:
        params: all parameters.
        samples: rows of `metrics/samples.jsonl`.
        quality: rows of `metrics/quality.tsv`.
        history: the metrics of each epoch.
        corpus: the corpus's name and the numbers of `metrics/windows.json`.
        ngram: the best n-gram model, None without a validation split.
        device: the line that names what the model was trained on.
        test_loss: of the final model, None without a test split.
        score: the tree of `metrics/score.json`.
        writer: what the model needs in order to write in the page.

    Returns:
        The HTML.
    """
    epochs = [int(epoch) for epoch in dict.fromkeys(sample["epoch"] for sample in samples)]
    temperatures = list(dict.fromkeys(sample["temperature"] for sample in samples))
    shown = with_metrics(samples, quality)
    by_temperature = [
        [each for (_, of), each in shown.items() if of == temperature] for temperature in temperatures
    ]
    parameters = as_text(params.model_dump(include=set(SECTIONS)))
    return render_template(
        "report.html.j2",
        charts=[loss_chart(history, ngram, params.train.targets), *quality_charts(quality, temperatures)],
        corpus=corpus,
        device=device,
        epochs=epochs,
        best=best_epoch(history),
        model=params.model,
        train=params.train,
        last=history[-1],
        history=history,
        ngram=ngram,
        names=list(history[0]),
        parameters=[item for item in parameters.items() if item[0] not in NOT_SHOWN],
        samples=by_temperature,
        surprise=page_section(score),
        shown={"epochs": epochs, "history": history, "samples": by_temperature},
        temperatures=temperatures,
        test_loss=test_loss,
        model_code=_read("model.js") + _read("worker.js"),
        writer=writer,
    )


def with_metrics(
    samples: Sequence[Mapping[str, Any]], quality: Sequence[dict[str, str]]
) -> dict[tuple[int, float], dict[str, Any]]:
    """Join samples with their metrics.

    Args:
        samples: rows of `metrics/samples.jsonl`.
        quality: rows of `metrics/quality.tsv`.

    Returns:
        By epoch and temperature `prompt`, `text` and each metric, in the order of the samples.
    """
    metrics = {(int(row["epoch"]), float(row["temperature"])): row for row in quality}
    return {
        at: {
            "prompt": sample["prompt"],
            "text": sample["text"],
            **{name: float(metrics[at][name]) for name in QUALITIES},
        }
        for sample in samples
        for at in [(sample["epoch"], sample["temperature"])]
    }


def render_template(name: str, **variables: Any) -> str:
    """Render a page's template of this folder, with the script that draws charts and the words of `TERMS`."""
    import jinja2
    import vl_convert

    javascript = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(FOLDER)
    )
    environment.globals |= {"terms": TERMS, "javascript": javascript.replace("</script", r"<\/script")}
    page = environment.get_template(name).render(**variables)
    return page.replace(HASHES, " ".join(hashes_of_scripts(page)), 1)


def hashes_of_scripts(page: str) -> list[str]:
    """List the hashes by which a content security policy allows the scripts of a page, and no other."""
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


def _read(name: str) -> str:
    """Read a script of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")
