"""One file is one runtime: each turns a graph or an engine file into something with `run`."""
