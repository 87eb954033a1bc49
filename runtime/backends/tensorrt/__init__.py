"""TensorRT and TensorRT-RTX: choice of the plans, plans with their memory, buckets of them, and the engine."""
