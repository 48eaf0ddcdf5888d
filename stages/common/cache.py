"""The folder of DVC's cache, where the pipeline keeps checkpoints and corpora of its own."""

from pathlib import Path


def cache_dir() -> Path | None:
    """Return DVC's cache folder, which all workspaces of a repository share; None outside a repository."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local_cache_dir)
    except NotDvcRepoError:
        return None
