"""The model: architectures, export, the fused LSTM step, text generation."""
