"""Typed ONNX graphs in; engines for TensorRT, TensorRT-RTX and OpenVINO out, each with a census of its precision."""
