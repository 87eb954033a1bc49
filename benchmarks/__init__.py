"""Targets and samples in; timings, agreement and accuracy out, as a table, JSON, CSV and one HTML page."""
