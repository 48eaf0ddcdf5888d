"""Stage `sample`: text from every epoch's checkpoint, at every temperature, its metrics, the model's score.

What the article's loop prints after each epoch. It is apart from training, so that a new temperature costs
seconds.
"""

from stages.common.errors import StageError, run_stage
from stages.common.files import read_output, write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import (
    BASELINE_FILE,
    CHECKPOINTS_DIR,
    CORPUS_FILE,
    MODELS_DIR,
    QUALITY_FILE,
    SAMPLES_DIR,
    SAMPLES_FILE,
    SCORE_FILE,
)
from stages.evaluation.sample_metrics import quality_table
from stages.evaluation.surprise import excerpt_of, score_line
from stages.text.normalization import read_pieces, read_text
from stages.text.samples import lines_of
from stages.text.vocabulary_file import read_model_text
from stages.training.checkpoints import checkpoint_files, fitting_checkpoint


def main() -> None:
    """Generate and measure all samples; score the first characters of the validation split or the text."""
    params = read_params()
    text = read_model_text(MODELS_DIR)
    files = list(checkpoint_files().values())
    if not files:
        raise StageError(f"{CHECKPOINTS_DIR} has no checkpoints; `dvc repro train` creates them")
    architecture = fitting_checkpoint(files[0], text.vocabulary).model
    indices = text.encode(params.sample.prompt, "sample.prompt")
    ngrams = read_output(BASELINE_FILE, "baseline")
    excerpt = excerpt_of(read_text(CORPUS_FILE, text), text, params.vectorize, ngrams)
    # TensorFlow takes seconds to import, so mistakes in the above are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that samples and bits do not depend on the device
    from stages.model.scoring import surprise
    from stages.training.loading import load_trained
    from stages.training.sampling import sample_epochs

    bits = surprise(load_trained(MODELS_DIR, None, text), excerpt.indices, excerpt.first, text.carried)
    samples = sample_epochs(files, architecture, text, params.sample, indices)
    quality = quality_table(read_pieces(CORPUS_FILE, text), samples)
    write_bytes_atomically(SAMPLES_FILE, lines_of(samples).encode())
    write_bytes_atomically(QUALITY_FILE, quality.encode())
    write_bytes_atomically(SCORE_FILE, score_line(excerpt, bits).encode())
    print(
        f"{len(files)} epochs, {len(samples)} samples of {params.sample.length} characters: "
        f"{SAMPLES_FILE}, {SAMPLES_DIR}, {QUALITY_FILE}"
    )
    beside = f", {excerpt.ngram[1].mean():.3f} by the {excerpt.ngram[0]}-gram" if excerpt.ngram else ""
    print(f"{len(bits):,} characters of the text, {bits.mean():.3f} bits each{beside}: {SCORE_FILE}")


if __name__ == "__main__":
    run_stage(main)
