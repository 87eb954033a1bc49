"""What a machine with a GPU can tell that none without can: kernels tested and timed there, engines built and run."""
