"""The parameters of `params.yaml`: the type and range of each.

Values that have to fit each other are checked in `combinations.py`, and those that have to fit the
machine by the stage `check`.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from stages.common.schema import SHA256_TAKES, Number, Section, Sha256, parameter, read_checked

PARAMS_FILE = Path("params.yaml")
SEED_TAKES = "a whole number from 0 to 4,294,967,295"
RANDOM_WEIGHTS = "initial/random"
CORPORA, INITIAL = Path("corpora"), Path("initial")  # in dvc.yaml, so that DVC notices changes in them
RENAMED = {"train.streams": "train.microbatches", "download.patience": "download.deadline"}


def _inside(folder: Path) -> AfterValidator:
    """Accept only paths into a folder, by their text alone: links are not followed."""

    def check(path: str) -> str:
        if folder not in Path(os.path.normpath(path)).parents or "\0" in path:
            raise ValueError(path)
        return path

    return AfterValidator(check)


class Download(Section):
    """Parameters of the download stage."""

    corpus: Annotated[str, _inside(CORPORA)] = parameter(
        f"the path of a corpus's description (.yaml) or of a text file in {CORPORA}/ (copy yours there)"
    )
    offline_corpus: Annotated[str, _inside(CORPORA)] | None = parameter(
        f"the path of a corpus's description (.yaml) in {CORPORA}/, or null", pattern=r"\.ya?ml$"
    )
    encoding: str = parameter("the name of a text encoding, like utf-8, latin-1, cp1252, utf-16 or gb18030")
    sha256: Sha256 | None = parameter(SHA256_TAKES + ", or null")
    timeout: Number = parameter("seconds from 0.1 to 60", ge=0.1, le=60)
    deadline: Number = parameter("seconds from 1 to 600", ge=1, le=600)
    retries: int = parameter("a whole number from 0 to 10", ge=0, le=10)
    max_bytes: int = parameter("a whole number of bytes from 1 to 10,000,000,000", ge=1, le=10**10)

    @property
    def corpora(self) -> list[Path]:
        """The files in `corpora/` that it names."""
        return [Path(name) for name in (self.corpus, self.offline_corpus) if name]

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)  # codecs.lookup alone would also take rot13 and the like
        except (LookupError, UnicodeError, ValueError):
            raise ValueError(encoding) from None
        return encoding


class Vectorize(Section):
    """Parameters of the vectorize stage."""

    maxlen: int = parameter("a whole number from 1 to 1,000", ge=1, le=1000)
    step: int = parameter("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    lowercase: bool = parameter("true or false")
    newlines_to_spaces: bool = parameter("true or false")
    validation: Number = parameter("a number from 0 to 0.5", ge=0, le=0.5)
    test: Number = parameter(
        "a number from 0 to 0.5, with vectorize.validation 0.5 together at most", ge=0, le=0.5
    )
    validation_step: int = parameter("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    one_hot: bool = parameter("true or false")

    @field_validator("test")
    @classmethod
    def _half_is_left_to_train_on(cls, test: float, info: ValidationInfo) -> float:
        if round(test + info.data.get("validation", 0), 9) > 0.5:
            raise ValueError("test")
        return test


class Model(Section):
    """Parameters of the model."""

    cell: Literal["lstm", "gru", "rnn"] = parameter("lstm, gru or rnn")
    layers: int = parameter("a whole number from 1 to 8", ge=1, le=8)
    units: int = parameter("a whole number from 1 to 4,096", ge=1, le=4096)
    dropout: Number = parameter("a number from 0 to 0.9", ge=0, le=0.9)
    embedding: int | None = parameter("a whole number from 1 to 4,096, or null", ge=1, le=4096)


class Train(Section):
    """Parameters of the train stage."""

    epochs: int = parameter("a whole number from 1 to 100,000", ge=1, le=100_000)
    batch_size: int = parameter("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    steps_per_epoch: int | None = parameter("a whole number from 1 to 100,000, or null", ge=1, le=100_000)
    targets: Literal["last", "all"] = parameter("last or all")
    state: Literal["reset", "carried"] = parameter("reset or carried")
    optimizer: Literal["rmsprop", "adam"] = parameter("rmsprop or adam")
    learning_rate: Number = parameter("a number above 0 and up to 10", gt=0, le=10)
    schedule: Literal["constant", "step", "cosine"] = parameter("constant, step or cosine")
    warmup_epochs: Number = parameter("a number of epochs from 0 to 1,000", ge=0, le=1000)
    decay_epochs: Number = parameter("a number of epochs from 0.001 to 100,000", ge=0.001, le=100_000)
    decay: Number = parameter("a number from 0 to 1", ge=0, le=1)
    clip_norm: Number | None = parameter("a number from 1e-30 to 1e37, or null", ge=1e-30, le=1e37)
    weight_decay: Number = parameter("a number from 0 to 10", ge=0, le=10)
    ema_momentum: Number | None = parameter("a number from 0 to 0.999999, or null", ge=0, le=0.999999)
    weight_dropout: Number = parameter("a number from 0 to 0.9", ge=0, le=0.9)
    embedding_dropout: Number = parameter("a number from 0 to 0.9", ge=0, le=0.9)
    variational_dropout: bool = parameter("true or false")
    tied_embedding: bool = parameter("true or false")
    seed: int = parameter(SEED_TAKES, ge=0, lt=2**32)
    init_from: Annotated[str, _inside(INITIAL)] = parameter(
        f"{RANDOM_WEIGHTS} or the path of a model in {INITIAL}/ (copy yours there)"
    )
    device: Literal["auto", "cpu", "gpu"] = parameter("auto, cpu or gpu")
    precision: Literal["float32", "tf32", "mixed_bfloat16"] = parameter("float32, tf32 or mixed_bfloat16")
    use_cudnn: bool = parameter("true or false")
    microbatches: int = parameter("a whole number from 1 to 64", ge=1, le=64)
    cores: int | None = parameter("a whole number from 1 to 1,024, or null", ge=1, le=1024)
    workers: int = parameter("a whole number from 1 to 64", ge=1, le=64)
    worker_timeout: Number = parameter("seconds from 1 to 3,600", ge=1, le=3600)
    keep: Literal["last", "best"] = parameter("last or best")
    patience: int | None = parameter("a whole number from 1 to 100,000, or null", ge=1, le=100_000)
    preview: int = parameter("a whole number from 0 to 1,000", ge=0, le=1000)


class Sample(Section):
    """Parameters of the sample stage."""

    temperatures: list[Annotated[Number, Field(ge=0, le=100)]] = parameter(
        "a list of 1 to 100 different numbers from 0 to 100", min_length=1, max_length=100
    )
    length: int = parameter("a whole number from 1 to 100,000", ge=1, le=100_000)
    prompt: str | None = parameter("text of at least one character, or null", min_length=1)
    seed: int = parameter(SEED_TAKES, ge=0, lt=2**32)

    @field_validator("temperatures")
    @classmethod
    def _temperatures_differ(cls, temperatures: list[float]) -> list[float]:
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("temperatures")
        return temperatures


class Report(Section):
    """Parameters of the report stage."""

    weights: Literal["final", "all", "none"] = parameter("final, all or none")
    weights_dtype: Literal["float32", "int16"] = parameter("float32 or int16")
    weights_limit: Number = parameter("megabytes from 0.001 to 500", ge=0.001, le=500)


class Params(Section):
    """All of `params.yaml`."""

    download: Download = parameter("a section")
    vectorize: Vectorize = parameter("a section")
    model: Model = parameter("a section")
    train: Train = parameter("a section")
    sample: Sample = parameter("a section")
    report: Report = parameter("a section")


def as_text(tree: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Write the values of a tree of sections as text, by dotted name: text as it is, all else as JSON."""
    return {
        f"{section}.{name}": value if isinstance(value, str) else json.dumps(value)
        for section, values in tree.items()
        for name, value in values.items()
    }


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and validate `params.yaml`.

    Args:
        path: the file.

    Returns:
        All parameters.

    Raises:
        StageError: there is no such file, or it has a mistake; the message names the first one.
    """
    hint = f"run from the project's root, or restore it with `git checkout {path}`"
    return read_checked(path, Params, hint, RENAMED)


def corpus_dir() -> Path | None:
    """Return the folder that `$CORPUS_DIR` names, or None where it is not set.

    `CORPUS_DIR`, and for workers `TF_CONFIG` and `CHAR_LSTM_CLUSTER_KEY`, are the only environment variables
    that are read, besides those of TensorFlow and its libraries (`training/machine.py`).
    """
    return Path(value) if (value := os.environ.get("CORPUS_DIR")) else None
