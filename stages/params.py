"""The one module that reads `params.yaml`: every knob's type and range.

A mistake is answered with the parameter's dotted name, what it got and what it takes, before any
work starts. `takes` beside each field is that last part.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from stages.errors import StageError

PARAMS_FILE = Path("params.yaml")


def _number_from_yaml(value: object) -> object:
    """YAML 1.1 reads 1e-3 (no dot) as text; everybody else reads it as a number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_number_from_yaml)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SHA256_TAKES = "64 hexadecimal digits in lower case"
SEED_TAKES = "a whole number from 0 to 4,294,967,295"


def knob(takes: str, **limits: Any) -> Any:
    """A parameter: `takes` says in words what `limits` say to pydantic."""
    return Field(description=takes, **limits)


class Section(BaseModel):
    """A part of `params.yaml`: exact types, no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


class Download(Section):
    """Parameters of the download stage."""

    corpus: str = knob("the path of a corpus's description (.yaml) or of a text file", min_length=1)
    offline_corpus: str | None = knob(
        "the path of a corpus's description (.yaml), or null", pattern=r"\.ya?ml$"
    )
    encoding: str = knob("the name of a text encoding, like utf-8, latin-1, cp1252, utf-16 or gb18030")
    sha256: Sha256 | None = knob(SHA256_TAKES + ", or null")
    timeout: Number = knob("seconds from 0.1 to 60", ge=0.1, le=60)
    patience: Number = knob("seconds from 1 to 600", ge=1, le=600)
    retries: int = knob("a whole number from 0 to 10", ge=0, le=10)
    max_bytes: int = knob("a whole number of bytes from 1 to 10,000,000,000", ge=1, le=10**10)

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

    maxlen: int = knob("a whole number from 1 to 1,000", ge=1, le=1000)
    step: int = knob("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    lowercase: bool = knob("true or false")
    newlines_to_spaces: bool = knob("true or false")
    validation: Number = knob("a number from 0 to 0.5", ge=0, le=0.5)
    validation_step: int = knob("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    one_hot: bool = knob("true or false")


class Model(Section):
    """Parameters of the model."""

    cell: Literal["lstm", "gru", "rnn"] = knob("lstm, gru or rnn")
    layers: int = knob("a whole number from 1 to 8", ge=1, le=8)
    units: int = knob("a whole number from 1 to 4,096", ge=1, le=4096)
    dropout: Number = knob("a number from 0 to 0.9", ge=0, le=0.9)
    embedding: int | None = knob("a whole number from 1 to 4,096, or null", ge=1, le=4096)


class Train(Section):
    """Parameters of the train stage."""

    epochs: int = knob("a whole number from 1 to 100,000", ge=1, le=100_000)
    batch_size: int = knob("a whole number from 1 to 1,000,000", ge=1, le=10**6)
    targets: Literal["last", "all"] = knob("last or all")
    optimizer: Literal["rmsprop", "adam"] = knob("rmsprop or adam")
    learning_rate: Number = knob("a number above 0 and up to 10", gt=0, le=10)
    schedule: Literal["constant", "step", "cosine"] = knob("constant, step or cosine")
    warmup_epochs: Number = knob("a number of epochs from 0 to 1,000", ge=0, le=1000)
    decay_epochs: Number = knob("a number of epochs above 0 and up to 100,000", gt=0, le=100_000)
    decay: Number = knob("a number from 0 to 1", ge=0, le=1)
    clip_norm: Number | None = knob("a number above 0, or null", gt=0)
    seed: int = knob(SEED_TAKES, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "gpu"] = knob("auto, cpu or gpu")
    precision: Literal["float32", "mixed_bfloat16"] = knob("float32 or mixed_bfloat16")
    streams: int = knob("a whole number from 1 to 64", ge=1, le=64)
    cores: int | None = knob("a whole number from 1 to 1,024, or null", ge=1, le=1024)
    workers: int = knob("a whole number from 1 to 64", ge=1, le=64)
    worker_timeout: Number = knob("seconds from 1 to 3,600", ge=1, le=3600)
    keep: Literal["last", "best"] = knob("last or best")
    patience: int | None = knob("a whole number from 1 to 100,000, or null", ge=1, le=100_000)
    preview: int = knob("a whole number from 0 to 1,000", ge=0, le=1000)


class Sample(Section):
    """Parameters of the sample stage."""

    temperatures: list[Annotated[Number, Field(ge=0, le=100)]] = knob(
        "a list of 1 to 100 different numbers from 0 to 100", min_length=1, max_length=100
    )
    length: int = knob("a whole number from 1 to 100,000", ge=1, le=100_000)
    prompt: str | None = knob("text of at least one character, or null", min_length=1)
    seed: int = knob(SEED_TAKES, ge=0, lt=2**32)

    @field_validator("temperatures")
    @classmethod
    def _temperatures_differ(cls, temperatures: list[float]) -> list[float]:
        if len(set(temperatures)) < len(temperatures):
            raise ValueError("temperatures")
        return temperatures


class Params(Section):
    """All of `params.yaml`."""

    download: Download = knob("a section")
    vectorize: Vectorize = knob("a section")
    model: Model = knob("a section")
    train: Train = knob("a section")
    sample: Sample = knob("a section")


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`. Raises StageError that names the first mistake."""
    hint = f"run from the project's root, or restore it with `git checkout {path}`"
    return read_checked(path, Params, hint)


def read_checked(path: Path, section: type[AnySection], if_missing: str) -> AnySection:
    """Read a YAML file and check it against a section.

    Raises StageError for a missing file (with the hint `if_missing`), text that is not YAML, an unknown
    or missing key, a wrong type or a value out of range; it names the first one found and counts the
    others.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {if_missing}") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise StageError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(tree, dict):
        keys = ", ".join(section.model_fields)
        raise StageError(f"{path}: takes {keys}, each with what belongs to it; got {str(tree)[:200]!r}")
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise StageError(f"{path}: {_in_one_line(error, section)}") from None


def _in_one_line(error: ValidationError, section: type[Section]) -> str:
    """`train.epochs: got -3; takes a whole number from 1 to 100,000`, and how many more there are."""
    first, *others = error.errors()
    location = [part for part in first["loc"] if part != "[key]"]
    got = repr(first["input"])
    name = ".".join(map(str, location))
    fields, takes = _field_at(location, section)
    if first["type"] == "extra_forbidden":
        message = f"{name}: no such parameter; there are {', '.join(fields)}"
    elif first["type"] == "missing":
        message = f"{name}: is missing; takes {takes}"
    else:
        message = f"{name}: got {got if len(got) <= 200 else got[:200] + '…'}; takes {takes}"
    return message + (f" (and {len(others)} more mistakes)" if others else "")


def _field_at(location: list[Any], section: type[Section]) -> tuple[list[str], str]:
    """The keys beside the place in question, and what the innermost parameter there takes."""
    model: type[BaseModel] | None = section
    fields: list[str] = list(section.model_fields)
    takes = "a section"
    for part in location:
        if model is not None and part in model.model_fields:
            field = model.model_fields[part]
            takes = field.description or takes
            below = _models_in(field.annotation)
            model = below[0] if below else None
        if model is not None:
            fields = list(model.model_fields)
    return fields, takes


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that a type annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]


def corpus_dir() -> Path | None:
    """The folder that $CORPUS_DIR names; besides TF_CONFIG, which is for workers, the only variable."""
    return Path(value) if (value := os.environ.get("CORPUS_DIR")) else None
