"""What every subcommand prints: JSON that every reader accepts, tables that line up, mistakes as one line."""

import json

import numpy as np
import pytest

from qanet.commandline import (
    amount,
    at_least,
    comma_list,
    command_parser,
    emit,
    fraction,
    numbers,
    positive_int,
    run_module,
    seconds,
    table,
)
from qanet.errors import QanetError


def test_the_document_is_json_that_every_reader_accepts(capsys, tmp_path):
    document = {
        "iou": np.array([0.5, np.nan], np.float32),
        "count": np.int64(3),
        "path": tmp_path,
        "worst": -np.inf,
        "nested": [{"value": float("nan"), 7: (1, True, None)}],
    }

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    emit(True, document, "text")
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {
        "iou": [0.5, None],
        "count": 3,
        "path": str(tmp_path),
        "worst": None,
        "nested": [{"value": None, "7": [1, True, None]}],
    }
    emit(False, document, "text")
    assert capsys.readouterr().out == "text\n"


def test_a_table_lines_up_with_numbers_to_the_right():
    assert table([("stem", 1.23456), ("a", 200)], ("layer", "ms")).splitlines() == [
        "layer  ms",
        "-----  -----",
        "stem   1.235",
        "a        200",
    ]


def test_a_wrong_argument_is_an_error_of_ours_that_names_the_help():
    with pytest.raises(QanetError, match="unrecognized arguments: --x; next: qanet doctor --help"):
        command_parser("doctor", "").parse_args(["--x"])
    assert command_parser("doctor", "").parse_args(["--json"]).json is True


def test_options_may_stand_between_positional_arguments():
    parser = command_parser("parse", "")
    parser.add_argument("input")
    parser.add_argument("output", nargs="?")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--model")
    args = parser.parse_args(["in.mp4", "--model", "lite", "out.webm", "--json", "a=1", "b=2"])
    assert (args.input, args.output, args.settings, args.model) == ("in.mp4", "out.webm", ["a=1", "b=2"], "lite")
    with pytest.raises(QanetError, match="the following arguments are required: input"):
        parser.parse_args(["--model", "lite"])


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (lambda _: 3, 3, ""),
        (QanetError("no such thing", got="that"), 2, "error: no such thing (got that)\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["code", "mistake", "interrupt"],
)
def test_a_module_ends_like_a_command(outcome, code, said, capsys):
    def main(argv):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(argv)

    with pytest.raises(SystemExit) as ended:
        run_module(main)
    assert ended.value.code == code and capsys.readouterr().err == said


PRECISIONS = ("fp32", "fp16", "int8")
SHORT = "one or more of fp32, fp16, int8"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (at_least(0), "0", 0),
        (at_least(4), "12", 12),
        (amount, "0", 0.0),
        (amount, "2.5", 2.5),
        (seconds, "0.1", 0.1),
        (fraction, "0", 0.0),
        (fraction, "1", 1.0),
        (numbers(), "1,0.9,1.1", (1.0, 0.9, 1.1)),
        (numbers(3), "1, .5, 3", (1.0, 0.5, 3.0)),
        (comma_list(PRECISIONS), "int8, fp32,int8,", ("int8", "fp32")),
    ],
)
def test_an_option_takes_what_its_type_takes(kind, text, value):
    parser = command_parser("build", "")
    parser.add_argument("--value", type=kind)
    found = parser.parse_args(["--value", text]).value
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (positive_int, "0", "1 or more"),
        (positive_int, "-3", "1 or more"),
        (positive_int, "two", "1 or more"),
        (positive_int, "1.5", "1 or more"),
        (at_least(4), "3", "4 or more"),
        (amount, "-0.1", "0 or more"),
        (amount, "nan", "0 or more"),
        (seconds, "0", "seconds above 0"),
        (seconds, "inf", "seconds above 0"),
        (fraction, "1.01", "a number from 0 to 1"),
        (fraction, "much", "a number from 0 to 1"),
        (numbers(), "1,,2", "numbers with commas between them"),
        (numbers(3), "1,2", "3 numbers with commas between them"),
        (comma_list(PRECISIONS), "fp32,int4", SHORT),
    ],
)
def test_an_option_names_what_its_type_refuses(kind, text, expected, capsys):
    def main(argv):
        parser = command_parser("build", "")
        parser.add_argument("-v", "--value", type=kind)
        parser.parse_args([f"--value={text}"])

    with pytest.raises(SystemExit) as ended:
        run_module(main)
    got = "int4" if "int4" in text else text
    assert ended.value.code == 2 and capsys.readouterr().err == f"error: bad --value (expected {expected}, got {got})\n"


def test_a_list_of_nothing_and_a_positional_argument_are_named_too():
    parser = command_parser("build", "")
    parser.add_argument("what", metavar="PRECISIONS", type=comma_list(PRECISIONS))
    with pytest.raises(QanetError, match=f"^bad PRECISIONS .expected {SHORT}, got ' , '"):
        parser.parse_args([" , "])
    parser.add_argument("--threads", type=positive_int)
    with pytest.raises(QanetError, match="argument --threads: expected one argument; next: qanet build --help"):
        parser.parse_args(["fp32", "--threads"])


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
