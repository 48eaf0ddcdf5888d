"""Samples of all epochs, out of their checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.common.files import write_bytes_atomically
from stages.common.params import Sample as Settings
from stages.common.paths import SAMPLES_DIR
from stages.model.architecture import build_model
from stages.model.generator import Generator, uniform_draws
from stages.text.samples import Sample, as_the_article_prints
from stages.text.vocabulary import decode
from stages.text.vocabulary_file import ModelText
from stages.training.checkpoints import fitting_checkpoint


def sample_epochs(
    files: list[Path], architecture: dict[str, Any], text: ModelText, settings: Settings, indices: np.ndarray
) -> list[Sample]:
    """Generate the samples of all epochs, and write each epoch's as the article prints them.

    Args:
        files: the checkpoints.
        architecture: the arguments of `build_model`, as a checkpoint has them.
        text: how the model reads text.
        settings: the section `sample` of `params.yaml`.
        indices: the prompt, as indices into the vocabulary.

    Returns:
        The samples.

    Raises:
        StageError: a checkpoint is damaged, or of another text.
    """
    model = build_model(**architecture)
    generator = Generator(model, settings.temperatures, settings.length, text.carried)
    prompt = text.normalized(settings.prompt)
    samples: list[Sample] = []
    for path in files:
        checkpoint = fitting_checkpoint(path, text.vocabulary)
        model.set_weights(checkpoint.weights)
        draws = uniform_draws(settings.seed, checkpoint.epoch, settings.temperatures, settings.length)
        texts = [decode(row, text.vocabulary) for row in generator(indices, draws)]
        of_epoch: list[Sample] = [
            {"epoch": checkpoint.epoch, "temperature": temperature, "prompt": prompt, "text": generated}
            for temperature, generated in zip(settings.temperatures, texts, strict=True)
        ]
        page = as_the_article_prints(of_epoch, checkpoint.metrics["loss"])
        write_bytes_atomically(SAMPLES_DIR / f"{path.stem}.txt", page.encode())
        samples += of_epoch
    return samples
