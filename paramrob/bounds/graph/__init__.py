"""Linear bounds over boxed parameters for graphs of dense, convolutional and pooling layers."""
