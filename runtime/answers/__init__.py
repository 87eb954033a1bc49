"""Known answers: each engine answers a few pictures on the machine where it runs, before its first result.

`known` holds the pictures and what a bundle's graphs say to them, `judge` compares an engine's answers with those,
`verdicts` remembers the outcome in the user's cache, and `ask` puts the three together.

A precision is not proved by its name, nor on the machine that built it: INT8 without dot products in hardware saturates
on one CPU and is exact on the next, with the same file and the same library.
"""
