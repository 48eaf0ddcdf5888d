"""Training: the trainer and its steps, learning-rate schedules, checkpoints, fingerprint, device."""
