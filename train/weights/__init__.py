"""Checkpoints: ours, the authors', and where a run starts."""
