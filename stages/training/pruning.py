"""Pruning of the checkpoint store: runs that no `dvc.lock` of the repository reaches are deleted."""

import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from stages.common.cache import Cache, open_repo
from stages.common.errors import StageError
from stages.common.paths import CHECKPOINTS_DIR
from stages.training.checkpoints import checkpoint_files
from stages.training.store import STORE

SECONDS_OF_A_DAY = 86_400


def prune(days: float, dry_run: bool) -> None:
    """Delete the runs that nothing reaches, and print each and what was freed.

    Args:
        days: keep runs that were written within this time.
        dry_run: only print.

    Raises:
        StageError: this is no DVC repository, or a revision cannot be read, so that it is unknown what its
            `dvc.lock` reaches.
    """
    from scmrepo.exceptions import SCMError

    try:
        with open_repo() as repo:
            if not repo:
                raise StageError("this is no DVC repository; run from the project's root")
            root, used = Cache(repo).folder / STORE, used_folders(repo)
    except (StageError, SCMError) as error:
        raise StageError(f"it is unknown which checkpoints are needed, so none is deleted: {error}") from None
    kept, deleted, freed = 0, 0, 0
    for run in sorted(path for path in root.glob("*") if path.is_dir()):
        recent = time.time() - days * SECONDS_OF_A_DAY
        files = list(checkpoint_files(run).values())
        lock = os.open(run, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a training run holds it
            if any(path.stat().st_mtime >= recent for path in files) or used & folder_hashes(files):
                kept += 1
                continue
            size = sum(path.stat().st_size for path in files)
            print(f"{run.name[:12]}: {len(files)} epochs, {size / 1e6:.1f} MB")
            deleted, freed = deleted + 1, freed + size
            if not dry_run:
                shutil.rmtree(run)
        except BlockingIOError:
            kept += 1
        finally:
            os.close(lock)
    verb = "to delete" if dry_run else "deleted"
    print(f"{verb}: {deleted} runs (freed: {freed / 1e6:.1f} MB); kept: {kept} runs")


def used_folders(repo: Any) -> set[str]:
    """Collect the hash of the checkpoints folder in `dvc.lock` of every revision that can be reached.

    Args:
        repo: a `dvc.repo.Repo`.

    Returns:
        DVC's hashes of the folder in the workspace, all branches, tags, experiments and queued experiments.
    """
    queued = [entry.stash_rev for entry in repo.experiments.celery_queue.iter_queued()]
    used = set()
    for _ in repo.brancher(revs=queued, all_branches=True, all_tags=True, all_experiments=True):
        for out in repo.index.outs:
            if Path(out.def_path) == CHECKPOINTS_DIR and out.hash_info:
                used.add(out.hash_info.value)
    return used


def folder_hashes(files: list[Path]) -> set[str]:
    """Compute DVC's hash of a folder with the first 1, 2, ... of these files.

    A shorter run shares the first checkpoints of a longer one.

    Args:
        files: the checkpoints of a run, in order.

    Returns:
        The hashes.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    hashes, tree = set(), Tree()
    for path in files:
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        tree.add((path.name,), None, HashInfo("md5", digest))
        tree.digest()
        hashes.add(str(tree.hash_info.value))
    return hashes
