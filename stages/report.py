"""Stage `report`: losses, quality and samples on one page, `metrics/report.html`.

The page needs no network and no server. A slider for the epoch shows how the samples change.
"""

import csv
import json
from typing import Any

import numpy as np

from stages.common.device_line import device_line
from stages.common.errors import StageError, run_stage
from stages.common.files import read_output, write_bytes_atomically
from stages.common.history import history_of, kept_epoch
from stages.common.params import read_params
from stages.common.paths import (
    BASELINE_FILE,
    CHECKPOINTS_DIR,
    CORPUS_METRICS,
    DEVICE_FILE,
    LOSSES_FILE,
    MODELS_DIR,
    QUALITY_FILE,
    REPORT_FILE,
    SCORE_FILE,
    TRAIN_METRICS,
    WINDOWS_SUMMARY,
)
from stages.evaluation.ngram import best_of
from stages.evaluation.page import render
from stages.evaluation.writer import epochs_that_write, make_writer
from stages.text.samples import read_samples
from stages.text.vocabulary_file import read_model_text
from stages.training.checkpoints import file_name, fitting_checkpoint


def main() -> None:
    """Read what the other stages wrote about the run; write the page."""
    params = read_params()
    samples = read_samples()
    quality = list(csv.DictReader(read_output(QUALITY_FILE, "sample").splitlines(), delimiter="\t"))
    history = history_of(read_output(LOSSES_FILE, "train"), params.train.targets)
    corpus = json.loads(read_output(CORPUS_METRICS, "download"))
    corpus |= json.loads(read_output(WINDOWS_SUMMARY, "vectorize"))
    ngram = best_of(read_output(BASELINE_FILE, "baseline"))
    test_loss = json.loads(read_output(TRAIN_METRICS, "train")).get("test_loss")
    device = device_line(json.loads(read_output(DEVICE_FILE, "train")))
    score = json.loads(read_output(SCORE_FILE, "sample"))
    text = read_model_text(MODELS_DIR)

    def read(epoch: int) -> tuple[dict[str, Any], list[np.ndarray]]:
        path = CHECKPOINTS_DIR / file_name(epoch)
        if not path.exists():
            raise StageError(f"{path} is missing; `dvc repro train` creates it")
        checkpoint = fitting_checkpoint(path, text.vocabulary)
        return checkpoint.model, checkpoint.weights

    kept = kept_epoch(history, params.train.keep)
    epochs = epochs_that_write(params.report, kept, len(history))
    writer = make_writer(params.report, params.sample, text, epochs, read)
    page = render(params, samples, quality, history, corpus, ngram, device, test_loss, score, writer)
    write_bytes_atomically(REPORT_FILE, page.encode())
    print(f"{len(history)} epochs, {len(samples)} samples, {len(page) / 1e6:.1f} MB: {REPORT_FILE}")


if __name__ == "__main__":
    run_stage(main)
