"""Checkpoints: everything that training needs in order to resume after an epoch, in one checksummed file."""

import hashlib
import io
import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import StageError
from stages.common.paths import CHECKPOINTS_DIR
from stages.text.vocabulary import vocabulary_sha256

FILE_NAME = re.compile(r"epoch-(\d{3,})\.npz")
DIGEST_LENGTH = 64  # SHA-256 in hexadecimal


@dataclass(frozen=True)
class Checkpoint:
    """The state after one epoch.

    Attributes:
        epoch: counted from 0.
        fingerprint: of everything that the weights depend on.
        model: the arguments of `build_model`.
        vocabulary: SHA-256 of the vocabulary (`vocabulary_sha256`).
        metrics: loss of the epoch and the like.
        weights: arrays in Keras's order.
        optimizer: arrays in Keras's order.
        training_weights: what training goes on with, where `weights` is an average of it; else empty.
    """

    epoch: int
    fingerprint: str
    model: dict[str, Any]
    vocabulary: str
    metrics: dict[str, float]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    training_weights: list[np.ndarray] = field(default_factory=list)


class DamagedCheckpoint(Exception):
    """A file is not a complete checkpoint. The text says why."""


def file_name(epoch: int) -> str:
    """Name a checkpoint file."""
    return f"epoch-{epoch:03d}.npz"


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Serialize a checkpoint as an `.npz` with its own SHA-256 in the zip's comment.

    Args:
        checkpoint: the checkpoint.

    Returns:
        The bytes, which numpy opens like any other `.npz`. Equal checkpoints give equal bytes.
    """
    about = {
        "epoch": checkpoint.epoch,
        "fingerprint": checkpoint.fingerprint,
        "model": checkpoint.model,
        "vocabulary": checkpoint.vocabulary,
        "metrics": checkpoint.metrics,
    }
    arrays = {f"weights_{i:03d}": array for i, array in enumerate(checkpoint.weights)}
    arrays |= {f"optimizer_{i:03d}": array for i, array in enumerate(checkpoint.optimizer)}
    arrays |= {f"training_{i:03d}": array for i, array in enumerate(checkpoint.training_weights)}
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    body = buffer.getvalue()[:-2]  # a zip ends with its comment, preceded by two bytes of length
    return body + struct.pack("<H", DIGEST_LENGTH) + hashlib.sha256(body).hexdigest().encode()


def from_bytes(content: bytes) -> Checkpoint:
    """Deserialize what `to_bytes` returned.

    Args:
        content: the bytes.

    Returns:
        The checkpoint.

    Raises:
        DamagedCheckpoint: a byte differs from what was written.
    """
    body, tail = content[: -DIGEST_LENGTH - 2], content[-DIGEST_LENGTH - 2 :]
    digest = hashlib.sha256(body).hexdigest().encode()
    if tail != struct.pack("<H", DIGEST_LENGTH) + digest:
        raise DamagedCheckpoint("its checksum does not match: cut short or changed")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        # the first version wrote no vocabulary
        about: dict[str, Any] = {"vocabulary": "", **json.loads(str(file["about"]))}
        names = sorted(file.files)
        return Checkpoint(
            **about,
            weights=[file[name] for name in names if name.startswith("weights_")],
            optimizer=[file[name] for name in names if name.startswith("optimizer_")],
            training_weights=[file[name] for name in names if name.startswith("training_")],
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Args:
        path: the file.

    Returns:
        The checkpoint.

    Raises:
        DamagedCheckpoint: the file is not a complete checkpoint.
        OSError: the file cannot be read.
    """
    return from_bytes(path.read_bytes())


def checkpoint_files(folder: Path = CHECKPOINTS_DIR) -> dict[int, Path]:
    """Find the checkpoint files in a folder, by epoch and in its order. Other files are left out."""
    found = {path: FILE_NAME.fullmatch(path.name) for path in folder.glob("*")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def fitting_checkpoint(path: Path, vocabulary: str) -> Checkpoint:
    """Read a checkpoint and check that it is of a vocabulary.

    Args:
        path: the file.
        vocabulary: the distinct characters.

    Returns:
        The checkpoint.

    Raises:
        StageError: it is damaged, or of another vocabulary.
    """
    try:
        checkpoint = read_checkpoint(path)
    except DamagedCheckpoint as error:
        raise StageError(f"{path}: {error}; `dvc repro --force train` creates it again") from None
    if checkpoint.vocabulary != vocabulary_sha256(vocabulary):
        raise StageError(
            f"{path} is of another text: its vocabulary is not that of vocabulary.json; `dvc repro train` "
            "creates both"
        )
    return checkpoint
