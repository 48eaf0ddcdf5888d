"""The pipeline's stages and what they share; `dvc.yaml` is the table of contents."""
