"""Fixtures of the end-to-end tests."""

import pytest

from tests.browser import browser
from tests.end_to_end.cluster_support import host, one_process, untrained
from tests.end_to_end.download_support import download, server

__all__ = ["download", "host", "one_process", "server", "untrained"]


@pytest.fixture(scope="module")
def driver():
    """A browser for all tests of a module."""
    with browser() as driver:
        yield driver
