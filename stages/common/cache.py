"""DVC's cache, where the pipeline keeps checkpoints and corpora of its own, and DVC's repository."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.errors import StageError
from stages.common.files import write_bytes_atomically


@contextlib.contextmanager
def open_repo() -> Iterator[Any]:
    """Open the `dvc.repo.Repo` of the working directory.

    Yields:
        The repository; None outside of one.

    Raises:
        StageError: DVC cannot read its configuration, `dvc.yaml` or `dvc.lock`.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with contextlib.ExitStack() as stack:
            try:
                repo = stack.enter_context(Repo())
            except NotDvcRepoError:
                repo = None
            yield repo
    except DvcException as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise StageError(f"DVC: {error}{cause}") from None


class Cache:
    """DVC's cache folder, which all workspaces of a repository share; with `cache.shared`, a group too."""

    def __init__(self, repo: Any = None) -> None:
        """Take the folder and the modes of files and folders from DVC.

        Args:
            repo: a `dvc.repo.Repo`; None for a folder outside of a repository.
        """
        self.folder = Path(repo.cache.local_cache_dir) if repo else Path()
        self._database = repo.cache.local if repo else None

    def make_folder(self, folder: Path) -> None:
        """Create a folder and those above it."""
        if self._database is None:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self._database.makedirs(str(folder))

    def write(self, path: Path, content: bytes) -> None:
        """Write a file atomically."""
        self.make_folder(path.parent)
        write_bytes_atomically(path, content, getattr(self._database, "_file_mode", None))
