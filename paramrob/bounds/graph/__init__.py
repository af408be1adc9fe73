"""Linear bounds for any graph of layers, batched."""
