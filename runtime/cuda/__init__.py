"""The CUDA layer: context, memory, streams and graphs through PyCUDA and cuda-python, and the kernels over them."""
