"""Backends: one module per inference runtime. `select` chooses one; each turns a graph or file into an `Engine`."""
