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


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model so that equal models give equal bytes.

    Keras writes the time into the archive's metadata and into each member's header, and memory
    addresses (`shared_object_id`) into the configuration. Here the times are constant, the addresses are
    numbered in their order, and the members are sorted by name.

    Args:
        model: the model, compiled or not.
        path: the `.keras` file to write.
    """
    with tempfile.TemporaryDirectory() as scratch:
        saved = os.path.join(scratch, "model.keras")
        model.save(saved)
        with zipfile.ZipFile(saved) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata: dict[str, Any] = json.loads(members["metadata.json"])
    metadata["date_saved"] = "1980-01-01@00:00:00"
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
