"""Frames from somewhere, results to somewhere, threads between."""
