"""The checks that need a GPU: kernels tested and timed, engines built and run."""
