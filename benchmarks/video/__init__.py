"""A video through the whole pipeline, results only: rate, where the processor time goes, memory, first result."""
