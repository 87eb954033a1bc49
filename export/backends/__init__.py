"""Builders of engines, one file per runtime, and the census of what they built."""
