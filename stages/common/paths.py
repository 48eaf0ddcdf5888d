"""Paths of the files that the stages exchange, as in `dvc.yaml`."""

from pathlib import Path

CORPUS_FILES = Path("data/corpus_files.json")
INITIAL_FILES = Path("data/initial_files.json")
CORPUS_FILE = Path("data/corpus.txt")
WINDOWS_FILE = Path("data/windows.npz")
CHECKPOINTS_DIR = Path("models/checkpoints")
MODELS_DIR = Path("models")
MODEL_FILE = MODELS_DIR / "model.keras"
CORPUS_METRICS = Path("metrics/corpus.json")
WINDOWS_SUMMARY = Path("metrics/windows.json")
BASELINE_FILE = Path("metrics/baseline.tsv")
LOSSES_FILE = Path("metrics/train/losses.tsv")
TRAIN_METRICS = Path("metrics/train/metrics.json")
DEVICE_FILE = Path("metrics/train/device.json")
SAMPLES_FILE = Path("metrics/samples.jsonl")
SAMPLES_DIR = Path("metrics/samples")
SCORE_FILE = Path("metrics/score.json")
QUALITY_FILE = Path("metrics/quality.tsv")
REPORT_FILE = Path("metrics/report.html")
