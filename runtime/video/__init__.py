"""Video in and out: sources, decoders, sinks, encoders, and the threaded pipeline between them."""
