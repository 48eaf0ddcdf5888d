"""Stage `baseline`: how well n-gram models predict the validation split, to compare the LSTM with."""

from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import BASELINE_FILE, CORPUS_FILE
from stages.evaluation.ngram import baseline, table_of
from stages.text.normalization import read_text


def main() -> None:
    """Measure n-gram models for n = 1 to 12; write a table."""
    settings = read_params().vectorize
    rows = baseline(read_text(CORPUS_FILE, settings), settings)
    write_bytes_atomically(BASELINE_FILE, table_of(rows).encode())
    if rows:
        bits = ", ".join(f"{row['val_bits_per_char']:.3f}" for row in rows)
        print(f"bits per character of n-grams on the validation split, n = 1 to {len(rows)}: {bits}")
    else:
        print("no validation split (vectorize.validation: 0), or one shorter than a window: no baseline")


if __name__ == "__main__":
    run_stage(main)
