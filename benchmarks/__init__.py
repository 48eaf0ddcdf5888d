"""Benchmarks: the pipeline in turn with the article's script. Not part of the test suite."""
