"""Snapshots: all that training needs in order to go on after an epoch, one checksummed file each.

`models/epochs/epoch-NNN.npz` is what DVC tracks. Before DVC runs a stage it removes the stage's
outputs, so a second copy lies in a store beside DVC's own cache, under the fingerprint of everything
that the numbers depend on. What is in the store is never computed again: not after a kill, not for
more or fewer epochs, not in `dvc exp run --temp` or the queue, not when a parameter is changed back.
"""

import hashlib
import io
import json
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.files import TEMPORARY_SUFFIX, write_bytes_whole
from stages.layout import EPOCHS_DIR

DIGEST_LENGTH = 64  # SHA-256 in hex
LEFTOVER_SECONDS = 600  # another run of the same fingerprint may be writing right now


@dataclass(frozen=True)
class Snapshot:
    """The state after one epoch.

    epoch: counted from 0. fingerprint: of what the numbers depend on. model: what `build_model`
    takes. figures: the epoch's loss and the like. weights, optimizer: arrays in Keras's order.
    """

    epoch: int
    fingerprint: str
    model: dict[str, Any]
    figures: dict[str, float]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]


class DamagedSnapshot(Exception):
    """A file that is not a whole snapshot; its text says why."""


def file_name(epoch: int) -> str:
    """The snapshot's file name in any folder."""
    return f"epoch-{epoch:03d}.npz"


def to_bytes(snapshot: Snapshot) -> bytes:
    """The snapshot as an `.npz` that carries its own SHA-256 as the zip's comment.

    numpy opens it like any other; equal snapshots give equal bytes.
    """
    about = {
        "epoch": snapshot.epoch,
        "fingerprint": snapshot.fingerprint,
        "model": snapshot.model,
        "figures": snapshot.figures,
    }
    arrays = {f"weights_{i:03d}": array for i, array in enumerate(snapshot.weights)}
    arrays |= {f"optimizer_{i:03d}": array for i, array in enumerate(snapshot.optimizer)}
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    body = buffer.getvalue()[:-2]  # a zip ends with its comment, preceded by two bytes of length
    return body + struct.pack("<H", DIGEST_LENGTH) + hashlib.sha256(body).hexdigest().encode()


def from_bytes(content: bytes) -> Snapshot:
    """The snapshot out of `to_bytes`. Raises DamagedSnapshot unless every byte is as it was written."""
    body, tail = content[: -DIGEST_LENGTH - 2], content[-DIGEST_LENGTH - 2 :]
    digest = hashlib.sha256(body).hexdigest().encode()
    if tail != struct.pack("<H", DIGEST_LENGTH) + digest:
        raise DamagedSnapshot("its checksum does not match: cut short or changed")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        about: dict[str, Any] = json.loads(str(file["about"]))
        names = sorted(file.files)
        return Snapshot(
            **about,
            weights=[file[name] for name in names if name.startswith("weights_")],
            optimizer=[file[name] for name in names if name.startswith("optimizer_")],
        )


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot file. Raises DamagedSnapshot, or OSError where it cannot be read."""
    return from_bytes(path.read_bytes())


def epoch_files(folder: Path = EPOCHS_DIR) -> list[Path]:
    """The snapshot files in a folder, in the order of their epochs."""
    return sorted(folder.glob("epoch-*.npz"), key=lambda path: int(path.stem.split("-")[1]))


class SnapshotStore:
    """The snapshots of one fingerprint, in a folder of their own beside DVC's cache."""

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = root / fingerprint

    def longest_run(self, epochs: int) -> list[dict[str, float]]:
        """The figures of the epochs from 0 on whose snapshots are there and whole, `epochs` at most.

        One that is not ends the run and is named on stderr; it is computed again.
        """
        for leftover in self.folder.glob(f".*{TEMPORARY_SUFFIX}"):  # of a process that was killed
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink(missing_ok=True)
        run: list[dict[str, float]] = []
        for epoch in range(epochs):
            path = self.folder / file_name(epoch)
            try:
                snapshot = read_snapshot(path)
            except FileNotFoundError:
                break
            except DamagedSnapshot as error:
                print(f"warning: snapshot {path} is not used: {error}", file=sys.stderr)
                break
            if (snapshot.epoch, snapshot.fingerprint) != (epoch, self.fingerprint):
                print(f"warning: snapshot {path} is not used: it is another run's", file=sys.stderr)
                break
            run.append(snapshot.figures)
        return run

    def adopt(self, files: Iterable[tuple[str, Path]]) -> None:
        """Take in snapshots of this run that lie elsewhere; `files` are names and paths.

        One that is damaged is named on stderr; the others are taken in.
        """
        for name, path in files:
            if (self.folder / name).exists():
                continue
            try:
                snapshot = read_snapshot(path)
            except OSError:  # DVC's cache has not got it
                continue
            except DamagedSnapshot as error:
                print(f"warning: snapshot {name} in {path} is not used: {error}", file=sys.stderr)
                continue
            if snapshot.fingerprint != self.fingerprint:
                return
            self.write(snapshot)

    def read(self, epoch: int) -> Snapshot:
        """One snapshot of the run."""
        return read_snapshot(self.folder / file_name(epoch))

    def write(self, snapshot: Snapshot) -> None:
        """Keep one snapshot; whole or not at all."""
        write_bytes_whole(self.folder / file_name(snapshot.epoch), to_bytes(snapshot))

    def publish(self, epoch: int, folder: Path = EPOCHS_DIR) -> None:
        """Copy one snapshot to where DVC tracks it."""
        write_bytes_whole(folder / file_name(epoch), (self.folder / file_name(epoch)).read_bytes())


def open_store(fingerprint: str) -> SnapshotStore:
    """The store beside DVC's cache, which all workspaces of a repository share.

    It takes in the snapshots that the workspace's `dvc.lock` lists and DVC's cache holds: those that
    `dvc pull` brought are not computed again either.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            store = SnapshotStore(Path(repo.cache.local_cache_dir) / "snapshots", fingerprint)
            store.adopt(_tracked_snapshots(repo))
            return store
    except NotDvcRepoError:
        return SnapshotStore(Path(".snapshots"), fingerprint)


def _tracked_snapshots(repo: Any) -> Iterator[tuple[str, Path]]:
    """(file name, file in DVC's cache) of each snapshot that the workspace's `dvc.lock` lists."""
    from dvc_data.index import DataIndexDirError

    try:
        entries = repo.dvcfs.ls(EPOCHS_DIR.as_posix(), detail=True, dvc_only=True)
    except (FileNotFoundError, DataIndexDirError):
        return  # nothing is tracked yet, or the cache does not have it, as in a fresh clone
    for entry in entries:
        if md5 := entry["dvc_info"].get("md5"):  # not where the stage has never run
            yield Path(entry["name"]).name, Path(repo.cache.local.oid_to_path(md5))
