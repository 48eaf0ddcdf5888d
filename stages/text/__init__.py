"""The text: corpora and their sources, normalization, vocabulary, windows."""
