"""Export of a model to a `.keras` file whose bytes follow from the model alone."""

import io
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

from stages.common.files import write_bytes_atomically

VOCABULARY = "vocabulary_sha256"  # in the metadata of a `.keras` file


def save_model(model: keras.Model, path: Path, vocabulary: str) -> None:
    """Save a model so that equal models give equal bytes.

    Keras writes the time into the archive's metadata and into each member's header, and memory
    addresses (`shared_object_id`) into the configuration. Here the times are constant, the addresses are
    numbered in their order, and the members are sorted by name.

    Args:
        model: the model, compiled or not.
        path: the `.keras` file to write.
        vocabulary: SHA-256 of the model's vocabulary, which becomes a part of the metadata.
    """
    with tempfile.TemporaryDirectory() as scratch:
        saved = os.path.join(scratch, "model.keras")
        model.save(saved)
        with zipfile.ZipFile(saved) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata: dict[str, Any] = json.loads(members["metadata.json"])
    metadata |= {"date_saved": "1980-01-01@00:00:00", VOCABULARY: vocabulary}
    members["metadata.json"] = json.dumps(metadata).encode()
    numbers: dict[bytes, int] = {}
    members["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: str(numbers.setdefault(found[0], len(numbers))).encode(),
        members["config.json"],
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's own date is 1980-01-01
    write_bytes_atomically(path, buffer.getvalue())


def vocabulary_of(path: Path) -> str | None:
    """Read the SHA-256 of the vocabulary out of a `.keras` file.

    Args:
        path: the file.

    Returns:
        The hash; None if the file is not one that `save_model` wrote.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                return None
            return json.loads(archive.read("metadata.json")).get(VOCABULARY)
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        return None
