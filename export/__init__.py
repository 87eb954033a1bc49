"""Checkpoint in; one ONNX graph with QAM fused, typed graphs, engines and a bundle out."""
