"""Known-answer tests: every engine runs a few pictures on the machine where it is used, before its first result.

`known` holds the pictures and the outputs of a bundle's graphs for them, `verdicts` compares an engine's outputs with
those and keeps the result in the user's cache, and `ask` runs the test.

Neither its name nor the machine that built it proves a precision: INT8 without dot products in hardware saturates on
one CPU and is exact on the next, with the same file and the same library.
"""
