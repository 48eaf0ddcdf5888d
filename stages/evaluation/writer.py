"""What the page needs so that the trained model writes in it: its weights as text, and how it reads."""

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.common.params import Report, Sample
from stages.text.vocabulary_file import ModelText

PURPOSE = "generate by hand"  # of the draws, so that they are those of `python -m stages.generate`
INT16 = 2**15 - 1
MAX_LENGTH = 10_000  # characters that the page writes at once
NOT_ASKED_FOR = "This page has no weights, so the model cannot write in it (report.weights is none)."

# from an epoch to the arguments of `build_model` and the weights in Keras's order
Read = Callable[[int], tuple[dict[str, Any], Sequence[np.ndarray]]]


@dataclass(frozen=True)
class Writer:
    """What the page is given.

    Attributes:
        why_not: why the page cannot write; empty if it can.
        settings: the model and how it reads text, a tree for JSON.
        weights: of each epoch, in base64.
        length: characters to write, unless the reader of the page asks for others.
    """

    why_not: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=dict)
    length: int = 0


def epochs_that_write(settings: Report, kept: int, epochs: int) -> list[int]:
    """List the epochs whose weights the page has.

    Args:
        settings: the section `report` of `params.yaml`.
        kept: the epoch of `models/model.keras`.
        epochs: how many there are.

    Returns:
        The epochs in their order.
    """
    return {"none": [], "final": [kept], "all": list(range(epochs))}[settings.weights]


def make_writer(
    settings: Report, sample: Sample, text: ModelText, epochs: Sequence[int], read: Read
) -> Writer:
    """Collect what the page needs in order to write.

    Args:
        settings: the section `report` of `params.yaml`.
        sample: the section `sample`, for the prompt and the length that the page begins with.
        text: how the model reads text.
        epochs: those whose weights the page has.
        read: gives the model and the weights of an epoch.

    Returns:
        The writer.
    """
    if not epochs:
        return Writer(NOT_ASKED_FOR)
    weights: dict[int, str] = {}
    for epoch in epochs:
        model, arrays = fold_embedding(*read(epoch))
        if not all(np.isfinite(array).all() for array in arrays):
            return Writer(
                f"The model cannot write in this page: in epoch {epoch} some weights are not finite numbers."
            )
        weights[epoch] = encode_weights(arrays, settings.weights_dtype)
        if (megabytes := len(weights[epoch]) * len(epochs) / 1e6) > settings.weights_limit:
            smaller = ["a higher limit"]
            smaller += ["report.weights_dtype: int16"] * (settings.weights_dtype == "float32")
            smaller += ["report.weights: final"] * (len(epochs) > 1)
            return Writer(
                f"The model cannot write in this page: its weights would take {megabytes:.4g} MB, and "
                f"report.weights_limit is {settings.weights_limit:g}; use {' or '.join(smaller)}."
            )
    return Writer(
        settings={
            **{name: model[name] for name in ("cell", "layers", "units", "embedding")},
            "dtype": settings.weights_dtype,
            "carried": text.carried,
            "maxlen": text.maxlen,
            "vocabulary": text.vocabulary,
            "lowercase": text.lowercase,
            "newlines_to_spaces": text.newlines_to_spaces,
            "prompt": text.normalized(sample.prompt),
            "purpose": zlib.crc32(PURPOSE.encode()),
            "epochs": list(epochs),
        },
        weights=weights,
        length=min(sample.length, MAX_LENGTH),
    )


def fold_embedding(
    model: dict[str, Any], arrays: Sequence[np.ndarray]
) -> tuple[dict[str, Any], Sequence[np.ndarray]]:
    """Replace the embedding and the first kernel by their product where that has fewer numbers.

    The page looks characters up in the product, so it needs nothing else of the two.

    Args:
        model: the arguments of `build_model`.
        arrays: the weights in Keras's order.

    Returns:
        Both, of a model without an embedding if it was replaced.
    """
    if model["embedding"] is None:
        return model, arrays
    table, kernel, *rest = arrays
    if len(table) * kernel.shape[1] >= table.size + kernel.size:
        return model, arrays
    product = (table.astype("f8") @ kernel).astype("f4")
    return model | {"embedding": None}, [product, *rest]


def encode_weights(arrays: Sequence[np.ndarray], dtype: str) -> str:
    """Write weights as base64 of little-endian numbers, one matrix after the other.

    With int16 a column is rounded to whole numbers times its largest absolute value / 32,767, which comes
    first (symmetric quantization by column). float16 takes as much space and is less exact: docs/page.md.

    Args:
        arrays: the weights in Keras's order, matrices (rows, columns) or vectors.
        dtype: float32 or int16.

    Returns:
        The text.
    """
    parts: list[np.ndarray] = []
    for matrix in map(np.atleast_2d, arrays):
        if dtype == "int16":
            factors = (np.abs(matrix).max(axis=0) / INT16).astype("<f4")
            whole = np.rint(matrix / np.where(factors, factors, 1))
            parts += [factors, np.clip(whole, -INT16, INT16).astype("<i2")]  # a subnormal factor is rounded
        else:
            parts.append(matrix.astype("<f4"))
    return base64.b64encode(b"".join(part.tobytes() for part in parts)).decode()
