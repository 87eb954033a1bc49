"""FP32 ONNX and crops in; activation ranges, scales.json and an INT8 graph with Q/DQ out."""
