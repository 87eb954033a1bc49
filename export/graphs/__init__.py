"""ONNX graphs of the networks, with their tails, in every float type."""
