"""Where the files between the stages lie, as in `dvc.yaml`."""

from pathlib import Path

CORPUS_FILE = Path("data/corpus.txt")
WINDOWS_FILE = Path("data/windows.npz")
EPOCHS_DIR = Path("models/epochs")
MODEL_FILE = Path("models/model.keras")
CORPUS_METRICS = Path("metrics/corpus.json")
VECTORIZE_METRICS = Path("metrics/vectorize.json")
TRAIN_DIR = Path("metrics/train")
SAMPLES_FILE = Path("metrics/samples.jsonl")
SAMPLES_DIR = Path("metrics/samples")
SAMPLE_METRICS = Path("metrics/sample.json")
QUALITY_FILE = Path("metrics/quality.tsv")
QUALITY_METRICS = Path("metrics/quality.json")
BASELINE_METRICS = Path("metrics/baseline.json")
REPORT_FILE = Path("metrics/report.html")
