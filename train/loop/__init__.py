"""A training run: losses, steps, averaged weights, validation, progress, several processes."""
