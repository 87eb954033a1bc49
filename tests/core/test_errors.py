"""An error is one line: the fact, expected against got, the next command."""

import pytest

from qanet.errors import QanetError


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "it broke"),
        ({"expected": 1, "got": 0}, "it broke (expected 1, got 0)"),
        ({"expected": "(H, W)"}, "it broke (expected (H, W))"),
        ({"got": "nothing", "next_command": "qanet doctor"}, "it broke (got nothing); next: qanet doctor"),
        ({"got": "two\n  lines"}, "it broke (got two lines)"),
    ],
)
def test_the_line_tells_what_is_known(fields, line):
    assert QanetError("it broke", **fields).line() == str(QanetError("it broke", **fields)) == line
