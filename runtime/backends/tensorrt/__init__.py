"""TensorRT and TensorRT-RTX: `choice` of the plans, a deserialised `plan`, its `session` with memory, the `engine`."""
