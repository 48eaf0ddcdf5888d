"""Training by several processes, hosts or GPUs: the strategy, and failure detection beside it."""
