"""Training of the person detector: photographs, labels of teachers, batches, losses and the run."""
