"""The commands `qanet parse` and `qanet masks`."""
