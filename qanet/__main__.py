"""The command: a table of names to modules, each imported only when it is called."""

import difflib
import importlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qanet._version import __version__
from qanet.commandline import note, run_command
from qanet.errors import QanetError, QanetWarning


@dataclass(frozen=True)
class Command:
    """Where a subcommand lives: a module whose `main` takes its arguments."""

    module: str
    summary: str


COMMANDS = {
    "doctor": Command("qanet.cli.doctor", "what this machine can run, and whether its engines answer rightly"),
    "new": Command("qanet.cli.new", "a folder of your own classes from annotated photographs, ready to train"),
    "check": Command("qanet.cli.check_data", "walk a data set, name its broken files, count its classes"),
    "train": Command("qanet.train.command", "train a recipe; resumes where it stopped"),
    "val": Command("qanet.benchmarks.val", "accuracy of a bundle or a checkpoint on a data set"),
    "export": Command("qanet.export.command", "checkpoint to a bundle with one ONNX graph"),
    "calibrate": Command("qanet.calib.command", "INT8 scales from images of people"),
    "calibrate-quality": Command(
        "qanet.benchmarks.calibrate_quality", "the map from scores to the expected mean IoU of a person"
    ),
    "qat": Command("qanet.train.qat", "fine-tune a calibrated network with fake quantisation"),
    "build": Command("qanet.export.building.command", "typed graphs and engines for a target, each proved"),
    "parse": Command("qanet.runtime.cli.command", "parse the people of a video, an image or a folder"),
    "benchmark": Command(
        "qanet.benchmarks.command", "latency against accuracy, with an HTML report; verdicts on two results"
    ),
    "masks": Command("qanet.runtime.cli.masks", "instance masks of people as COCO results, scored by QAM"),
    "rescore": Command("qanet.benchmarks.rescore", "rank the masks of a Mask R-CNN again by their quality (QAM)"),
    "inspect": Command("qanet.cli.inspect", "contents, size and engines of a bundle, a checkpoint or a recipe"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0, or 2 for a user's mistake, or 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"qanet-edge {__version__}")
        return 0
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", QanetWarning)  # whatever Python was told about warnings
    _shown.clear()
    return run_command(lambda: _run(arguments[0], arguments[1:]))


def _run(name: str, arguments: Sequence[str]) -> int:
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise QanetError(
            f"no command {name!r}{f', did you mean {near[0]!r}?' if near else ''}",
            expected=f"one of {', '.join(COMMANDS)}",
            next_command=f"qanet {near[0] if near else '--help'}",
        )
    try:
        return int(importlib.import_module(command.module).main(arguments) or 0)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("qanet"):
            raise
        raise QanetError(f"{error.name} is not installed", next_command=_install_hint(name)) from error


_shown: set[str] = set()


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """The project's own warnings as one line without a place in the code; all others as Python shows them."""
    if issubclass(category, QanetWarning):
        if str(message) not in _shown:  # once a command, however many engines it opens
            note(f"note: {message}")
            _shown.add(str(message))
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")


def _install_hint(command: str) -> str:
    extras = {
        "train": "train",
        "export": "export",
        "val": "export",
        "calibrate": "calib",
        "calibrate-quality": "export",
        "qat": "train",
        "inspect": "train",
    }
    extra = extras.get(command)
    return f"pip install 'qanet-edge[{extra}]'" if extra else "pip install --upgrade qanet-edge"


def _help() -> str:
    lines = ["qanet: quality-aware human parsing on the edge", "", "usage: qanet COMMAND [ARGUMENTS]", ""]
    lines += [f"  {name:<17} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "qanet COMMAND --help tells the arguments of each."])


if __name__ == "__main__":
    sys.exit(main())
