"""Stage `quality`: metrics of every sample, `metrics/quality.tsv`."""

from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE, QUALITY_FILE
from stages.evaluation.sample_metrics import quality_table
from stages.text.normalization import read_pieces
from stages.text.samples import read_samples


def main() -> None:
    """Measure all samples; write a table."""
    corpus = read_pieces(CORPUS_FILE, read_params().vectorize)
    samples = read_samples()
    write_bytes_atomically(QUALITY_FILE, quality_table(corpus, samples).encode())
    print(f"{len(samples)} samples against {CORPUS_FILE}: {QUALITY_FILE}")


if __name__ == "__main__":
    run_stage(main)
