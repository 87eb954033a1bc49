"""CUDA through PyCUDA and cuda-python: devices, memory, graphs, and the project's kernels."""
