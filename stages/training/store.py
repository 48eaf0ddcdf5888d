"""The checkpoint store: every checkpoint that was computed, beside DVC's cache.

DVC removes the outputs of a stage before it runs the stage. So a second copy of each checkpoint lies in the
store, in a folder named by the fingerprint of everything that the weights depend on. An epoch in the store
is never computed again: not after a kill, not for more or fewer epochs, not in `dvc exp run --temp` or the
queue, not when a parameter is changed back.
"""

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.common.cache import Cache, open_repo
from stages.common.files import write_bytes_atomically
from stages.common.history import Metrics
from stages.common.paths import CHECKPOINTS_DIR
from stages.training.checkpoints import (
    Checkpoint,
    DamagedCheckpoint,
    file_name,
    read_checkpoint,
    to_bytes,
)

STORE = "checkpoints"  # in DVC's cache


class CheckpointStore:
    """The checkpoints of one fingerprint."""

    def __init__(self, root: Path, fingerprint: str, cache: Cache | None = None) -> None:
        """Create the store of a fingerprint.

        Args:
            root: the folder of all fingerprints.
            fingerprint: of everything that the weights depend on.
            cache: DVC's, where `root` lies in it.
        """
        self._cache = cache or Cache()
        self.fingerprint = fingerprint
        self.folder = root / fingerprint
        self._lock = -1

    def lock(self) -> None:
        """Keep `python -m stages.prune` from deleting this run as long as this process lives."""
        if self._lock >= 0:
            os.close(self._lock)
        self._cache.make_folder(self.folder)
        self._lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def valid_epochs(self, epochs: int) -> list[Metrics]:
        """Read the metrics of the consecutive valid checkpoints from epoch 0.

        A checkpoint that is damaged or belongs to another run ends the list and is named on stderr; its
        epoch is computed again.

        Args:
            epochs: how many to read at most.

        Returns:
            The metrics of each epoch.
        """
        valid: list[Metrics] = []
        for epoch in range(epochs):
            path = self.folder / file_name(epoch)
            try:
                checkpoint = read_checkpoint(path)
            except FileNotFoundError:
                break
            except DamagedCheckpoint as error:
                print(f"warning: checkpoint {path} is not used: {error}", file=sys.stderr)
                break
            if (checkpoint.epoch, checkpoint.fingerprint) != (epoch, self.fingerprint):
                print(f"warning: checkpoint {path} is not used: it belongs to another run", file=sys.stderr)
                break
            valid.append(checkpoint.metrics)
        return valid

    def adopt(self, files: Iterable[tuple[str, Path]]) -> None:
        """Copy checkpoints of this run that lie elsewhere. A damaged one is named on stderr and left out.

        Args:
            files: name and path of each.
        """
        for name, path in files:
            if (self.folder / name).exists():
                continue
            try:
                checkpoint = read_checkpoint(path)
            except OSError:  # DVC's cache does not have it
                continue
            except DamagedCheckpoint as error:
                print(f"warning: checkpoint {name} in {path} is not used: {error}", file=sys.stderr)
                continue
            if checkpoint.fingerprint != self.fingerprint:
                return
            self.write(checkpoint)

    def read(self, epoch: int) -> Checkpoint:
        """Read the checkpoint of an epoch."""
        return read_checkpoint(self.folder / file_name(epoch))

    def content(self, epoch: int) -> bytes:
        """Read the bytes of an epoch's checkpoint."""
        return (self.folder / file_name(epoch)).read_bytes()

    def write(self, checkpoint: Checkpoint) -> bytes:
        """Write a checkpoint atomically, also if the store is deleted at this moment; return its bytes."""
        path, content = self.folder / file_name(checkpoint.epoch), to_bytes(checkpoint)
        if self._lock >= 0 and not self.folder.exists():
            self.lock()
        try:
            self._cache.write(path, content)
        except FileNotFoundError:
            self._cache.write(path, content)
        return content


def publish(epoch: int, content: bytes) -> None:
    """Write the bytes of an epoch's checkpoint into the folder that DVC tracks."""
    write_bytes_atomically(CHECKPOINTS_DIR / file_name(epoch), content)


def open_store(fingerprint: str) -> CheckpointStore:
    """Open the store beside DVC's cache, which all workspaces of a repository share.

    It first adopts the checkpoints that the workspace's `dvc.lock` lists and DVC's cache holds. So epochs
    that `dvc pull` brought are not computed again either.

    Args:
        fingerprint: of everything that the weights depend on.

    Returns:
        The store of this fingerprint.

    Raises:
        StageError: DVC cannot read its configuration, `dvc.yaml` or `dvc.lock`.
    """
    with open_repo() as repo:
        if not repo:
            return CheckpointStore(Path(f".{STORE}"), fingerprint)
        cache = Cache(repo)
        store = CheckpointStore(cache.folder / STORE, fingerprint, cache)
        store.lock()
        store.adopt(_tracked_checkpoints(repo))
        return store


def _tracked_checkpoints(repo: Any) -> Iterator[tuple[str, Path]]:
    """Yield (file name, file in DVC's cache) of each checkpoint that the workspace's `dvc.lock` lists."""
    from dvc_data.index import DataIndexDirError

    try:
        entries = repo.dvcfs.ls(CHECKPOINTS_DIR.as_posix(), detail=True, dvc_only=True)
    except (FileNotFoundError, DataIndexDirError):
        return  # nothing is tracked yet, or the cache does not have it, as in a fresh clone
    for entry in entries:
        if md5 := entry["dvc_info"].get("md5"):  # not where the stage has never run
            yield Path(entry["name"]).name, Path(repo.cache.local.oid_to_path(md5))
