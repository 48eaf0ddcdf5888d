"""Fixtures of the end-to-end tests."""

import shutil
from pathlib import Path

import pytest

from tests.browser import browser
from tests.end_to_end.cluster_support import host, one_process, untrained
from tests.end_to_end.download_support import download, server
from tests.support import Project, made_once

__all__ = ["download", "host", "one_process", "server", "untrained"]


@pytest.fixture(scope="session")
def driver():
    """A browser for all tests."""
    with browser() as driver:
        yield driver


@pytest.fixture(scope="session")
def longer(finished, tmp_path_factory) -> Project:
    """The small project after an experiment `longer`: five epochs, a validation and a test split."""

    def make(root: Path) -> None:
        shutil.copytree(finished.root, root, symlinks=True, dirs_exist_ok=True)
        changes = ("train.epochs=5", "vectorize.validation=0.2", "vectorize.test=0.1")
        options = [option for change in changes for option in ("-S", change)]
        Project(root).dvc("exp", "run", *options, "--name", "longer")

    return Project(made_once(tmp_path_factory, "longer", make))
