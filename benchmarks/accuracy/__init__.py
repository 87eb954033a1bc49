"""Accuracy beside latency: the metrics of `qanet val` on a data folder, each with an interval over the images."""
