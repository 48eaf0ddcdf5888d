"""The pipeline: one file per stage or command; the folders hold what they are made of."""
