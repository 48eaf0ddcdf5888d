"""The file `models/vocabulary.json`: how a model reads text, apart from corpus and parameters."""

import json
from pathlib import Path

import numpy as np

from stages.common.errors import StageError
from stages.common.files import read_output, write_json_atomically
from stages.common.params import Vectorize
from stages.common.paths import MODELS_DIR
from stages.common.schema import Section, checked, parameter
from stages.text.normalization import normalize
from stages.text.vocabulary import decode, encode_prompt
from stages.text.windows import Windows

FILE_NAME = "vocabulary.json"


class ModelText(Section):
    """How a model reads text."""

    vocabulary: str = parameter("the distinct characters, sorted", min_length=1)
    lowercase: bool = parameter("true or false")
    newlines_to_spaces: bool = parameter("true or false")
    first_window: str = parameter("the first window of the training text", min_length=1)
    carried: bool = parameter("true or false", default=False)

    @property
    def maxlen(self) -> int:
        """Characters in a window."""
        return len(self.first_window)

    def normalized(self, prompt: str | None) -> str:
        """Normalize a prompt as the training text was; None stands for the first window of that text."""
        return self.first_window if prompt is None else normalize(prompt, self)

    def encode(self, prompt: str | None, name: str) -> np.ndarray:
        """Encode a prompt as the training text was encoded.

        Args:
            prompt: any text; None for the first window of the training text.
            name: what error messages call it.

        Returns:
            (P,) int32 indices, of the last `maxlen` characters at most unless the state is carried.

        Raises:
            StageError: the prompt is empty or has a character outside the vocabulary.
        """
        text = self.normalized(prompt)
        return encode_prompt(text, self.vocabulary, len(text) if self.carried else self.maxlen, name)


def model_text(windows: Windows, settings: Vectorize, carried: bool) -> ModelText:
    """Describe how a model that learns from these windows reads text, and whether with a carried state."""
    return ModelText(
        vocabulary=windows.vocabulary,
        lowercase=settings.lowercase,
        newlines_to_spaces=settings.newlines_to_spaces,
        first_window=decode(windows.x[0], windows.vocabulary),
        carried=carried,
    )


def write_model_text(folder: Path, text: ModelText) -> None:
    """Write the file into a model's folder."""
    write_json_atomically(folder / FILE_NAME, text.model_dump(exclude_defaults=True))


def read_model_text(folder: Path) -> ModelText:
    """Read the file from a model's folder.

    Args:
        folder: for example `models`.

    Returns:
        What the train stage wrote.

    Raises:
        StageError: the file is missing or is not one that the train stage writes.
    """
    path = folder / FILE_NAME
    if folder != MODELS_DIR and not path.exists():
        raise StageError(f"{path} is missing; a model's folder has model.keras and {FILE_NAME}")
    try:
        tree = json.loads(read_output(path, "train"))
    except ValueError as error:
        raise StageError(f"{path} is damaged ({error}); `dvc repro train` creates it again") from None
    return checked(tree, path, ModelText)
