"""Stage `baseline`: how well n-gram models predict the validation and test splits, as a comparison."""

from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import BASELINE_FILE, CORPUS_FILE
from stages.evaluation.ngram import baseline, best_of, table_of
from stages.text.normalization import read_text


def main() -> None:
    """Measure n-gram models for n = 1 to 12; write a table."""
    settings = read_params().vectorize
    rows = baseline(read_text(CORPUS_FILE, settings), settings)
    table = table_of(rows)
    write_bytes_atomically(BASELINE_FILE, table.encode())
    if rows:
        bits = ", ".join(f"{row['val_bits_per_char']:.3f}" for row in rows)
        print(f"bits per character of n-grams on the validation split, n = 1 to {len(rows)}: {bits}")
        best = best_of(table)
        if best and "test_bits_per_char" in best:
            print(f"on the test split, n = {best['n']}: {best['test_bits_per_char']:.3f}")
    else:
        print("no validation split (vectorize.validation: 0), or one shorter than a window: no baseline")


if __name__ == "__main__":
    run_stage(main)
