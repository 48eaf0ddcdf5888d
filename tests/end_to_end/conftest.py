"""Fixtures of the end-to-end tests."""

from tests.end_to_end.cluster_support import host, one_process, untrained
from tests.end_to_end.download_support import download, server

__all__ = ["download", "host", "one_process", "server", "untrained"]
