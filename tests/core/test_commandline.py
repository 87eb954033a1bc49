"""What every subcommand prints: JSON that every reader accepts, tables that line up, mistakes as errors."""

import json

import numpy as np
import pytest

from qanet.commandline import command_parser, emit, run_module, table
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
