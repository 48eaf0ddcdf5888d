"""Stage `sample`: text from every epoch's checkpoint, at every temperature, and its metrics.

What the article's loop prints after each epoch. It is apart from training, so that a new temperature costs
seconds.
"""

from stages.common.errors import StageError, run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import read_params
from stages.common.paths import (
    CHECKPOINTS_DIR,
    CORPUS_FILE,
    MODELS_DIR,
    QUALITY_FILE,
    SAMPLES_DIR,
    SAMPLES_FILE,
)
from stages.evaluation.sample_metrics import quality_table
from stages.text.normalization import read_pieces
from stages.text.samples import Sample, as_the_article_prints, lines_of
from stages.text.vocabulary import decode
from stages.text.vocabulary_file import read_model_text
from stages.training.checkpoints import checkpoint_files, fitting_checkpoint


def main() -> None:
    """Generate and measure all samples; write them for programs, and as the article prints them."""
    params = read_params().sample
    text = read_model_text(MODELS_DIR)
    files = list(checkpoint_files().values())
    if not files:
        raise StageError(f"{CHECKPOINTS_DIR} has no checkpoints; `dvc repro train` creates them")
    arguments = fitting_checkpoint(files[0], text.vocabulary).model
    prompt = text.normalized(params.prompt)
    indices = text.encode(params.prompt, "sample.prompt")
    corpus = read_pieces(CORPUS_FILE, text)
    # TensorFlow takes seconds to import, so mistakes in the above are reported before
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")  # so that samples do not depend on the device
    from stages.model.architecture import build_model
    from stages.model.generator import Generator, uniform_draws

    model = build_model(**arguments)
    generator = Generator(model, params.temperatures, params.length, text.carried)
    samples: list[Sample] = []
    for path in files:
        checkpoint = fitting_checkpoint(path, text.vocabulary)
        model.set_weights(checkpoint.weights)
        draws = uniform_draws(params.seed, checkpoint.epoch, params.temperatures, params.length)
        texts = [decode(row, text.vocabulary) for row in generator(indices, draws)]
        of_epoch: list[Sample] = [
            {"epoch": checkpoint.epoch, "temperature": temperature, "prompt": prompt, "text": generated}
            for temperature, generated in zip(params.temperatures, texts, strict=True)
        ]
        page = as_the_article_prints(of_epoch, checkpoint.metrics["loss"])
        write_bytes_atomically(SAMPLES_DIR / f"{path.stem}.txt", page.encode())
        samples += of_epoch
    write_bytes_atomically(SAMPLES_FILE, lines_of(samples).encode())
    quality = quality_table(corpus, samples)
    write_bytes_atomically(QUALITY_FILE, quality.encode())
    print(
        f"{len(files)} epochs, {len(samples)} samples of {params.length} characters: "
        f"{SAMPLES_FILE}, {SAMPLES_DIR}, {QUALITY_FILE}"
    )


if __name__ == "__main__":
    run_stage(main)
