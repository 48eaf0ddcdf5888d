"""Fixtures of all tests."""

import gc
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.params import Params, read_params
from tests.support import SMALL, Project, changed_params, copy_of_the_project, made_once, make_text

# a background job of a script ignores it, and so would every process that a test starts and interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
# TensorFlow's graphs are many objects, and searching them for garbage takes a twentieth of the time
gc.set_threshold(100_000, 50, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one of several processes begin with the longest tests; at the end the others would wait for it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "worker" not in item.path.name)


@pytest.fixture
def params(tmp_path):
    """A function that gives checked Params with `section__key=value` changed."""

    def make(**changes: Any) -> Params:
        path = tmp_path / "params-for-test.yaml"
        path.write_text(yaml.safe_dump(changed_params(**changes)), encoding="utf-8")
        return read_params(path)

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A small project after `dvc repro` and a commit. Tests that change it take `small` instead."""

    def make(root: Path) -> None:
        copy_of_the_project(root)
        (root / "corpora/book.txt").write_text(make_text(3000), encoding="utf-8")
        project = Project(root, **SMALL)
        project.run("git", "init", "-q")
        project.run("git", "add", "-A")
        project.run("git", "commit", "-qm", "start")
        project.dvc("repro", fork=False)  # so that others are compared with what a user starts
        project.run("git", "add", "-A")
        project.run("git", "commit", "-qm", "results")

    return Project(made_once(tmp_path_factory, "finished", make))


@pytest.fixture
def small(finished, tmp_path) -> Project:
    """A copy of `finished` to change at will."""
    root = tmp_path / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    return Project(root)
