"""Pruning of the checkpoint store: runs that no `dvc.lock` of the repository reaches are deleted."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

from stages.common.errors import StageError
from stages.training.store import store_root

SECONDS_OF_A_DAY = 86_400


def prune(days: float, dry_run: bool) -> None:
    """Delete the runs that nothing reaches, and print each and what was freed.

    Args:
        days: keep runs that were written within this time.
        dry_run: only print.

    Raises:
        StageError: this is no DVC repository, or DVC's cache lacks a list of checkpoints, so that it is
            unknown what `dvc.lock` reaches.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            root, used = store_root(repo), used_hashes(repo)
    except NotDvcRepoError as error:
        raise StageError(f"{error}; run from the project's root") from None
    kept, deleted, freed = 0, 0, 0
    for run in sorted(path for path in root.glob("*") if path.is_dir()):
        files = [path for path in run.rglob("*") if path.is_file()]
        if _is_needed(files, used, time.time() - days * SECONDS_OF_A_DAY):
            kept += 1
            continue
        size = sum(path.stat().st_size for path in files)
        print(f"{run.name[:12]}: {len(files)} files, {size / 1e6:.1f} MB")
        deleted, freed = deleted + 1, freed + size
        if not dry_run:
            shutil.rmtree(run)
    verb = "would be deleted" if dry_run else "deleted"
    print(f"{deleted} runs {verb}, {freed / 1e6:.1f} MB; {kept} runs kept")


def used_hashes(repo: Any) -> set[str]:
    """Collect the MD5 of every file that `dvc.lock` of the workspace, branches, tags and experiments names.

    Args:
        repo: a `dvc.repo.Repo`.

    Returns:
        The hashes.

    Raises:
        StageError: DVC's cache lacks the list of files of a folder.
    """
    from dvc.exceptions import RevCollectionError

    try:
        used = repo.used_objs(all_branches=True, all_tags=True, all_experiments=True)
    except RevCollectionError as error:
        raise StageError(
            f"{error}: DVC's cache lacks a list of files that its dvc.lock names, so it is unknown which "
            "checkpoints it needs; get it with `dvc fetch --all-branches --all-tags`, or delete the whole "
            "store (docs/troubleshooting.md)"
        ) from None
    return {each.value for objects in used.values() for each in objects if each.value}


def _is_needed(files: list[Path], used: set[str], since: float) -> bool:
    """Tell whether a run was written since a time, or has a file that is in use."""
    if any(path.stat().st_mtime >= since for path in files):
        return True
    return any(hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() in used for path in files)
