"""Evaluation: the n-gram baseline, metrics of samples, charts and the report page."""
