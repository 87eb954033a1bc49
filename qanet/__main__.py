"""The command: a table of names to functions, each imported only when it is called."""

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qanet._version import __version__
from qanet.errors import QanetError, QanetWarning


@dataclass(frozen=True)
class Command:
    """Where a subcommand lives, and the callables of other rooms that it is handed: rooms do not import each other."""

    target: str  # "module:function"
    summary: str
    uses: dict[str, str] = field(default_factory=dict)  # keyword argument -> "module:function"


COMMANDS = {
    "doctor": Command(
        "qanet.cli.doctor:main",
        "what this machine can run, what is missing, and whether its engines answer rightly",
        {"prove": "qanet.export.building.prove:prove"},
    ),
    "check": Command("qanet.cli.check_data:main", "walk a data set, name its broken files, count its classes"),
    "train": Command("qanet.train.command:main", "train a recipe; resumes where it stopped"),
    "val": Command(
        "qanet.benchmarks.val.command:main",
        "accuracy of a bundle or a checkpoint on a data set",
        {"open_checkpoint": "qanet.export.command:bundle_of_checkpoint"},
    ),
    "export": Command("qanet.export.command:main", "checkpoint to a bundle with one ONNX graph"),
    "calibrate": Command(
        "qanet.calib.command:main",
        "INT8 scales from images of people",
        {
            "open_crops": "qanet.runtime.crops:people_crops",
            "open_accuracy": "qanet.benchmarks.accuracy.graph:open_accuracy",
        },
    ),
    "qat": Command("qanet.train.qat:main", "fine-tune a calibrated network with fake quantisation"),
    "build": Command("qanet.export.building.command:main", "typed graphs and engines for a target, each proved"),
    "parse": Command("qanet.runtime.cli.command:main", "parse the people of a video, an image or a folder"),
    "benchmark": Command(
        "qanet.benchmarks.command:main",
        "latency against accuracy, with an HTML report; verdicts on two results",
        {"open_baseline": "qanet.export.baseline.parser:open_baseline", "graph_size": "qanet.export.size:graph_size"},
    ),
    "masks": Command("qanet.runtime.masks:main", "instance masks of people as COCO results, scored by QAM"),
    "rescore": Command("qanet.benchmarks.rescore:main", "rank the masks of a Mask R-CNN again by their quality (QAM)"),
    "inspect": Command(
        "qanet.cli.inspect:main",
        "what a bundle, a checkpoint or a recipe is, how large, and what it runs on",
        {
            "describe_network": "qanet.train.weights.describe:describe_network",
            "graph_size": "qanet.export.size:graph_size",
        },
    ),
}


def resolve(target: str) -> Callable[..., Any]:
    """Import "module:function"."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _lazily(target: str) -> Callable[..., Any]:
    """A callable that imports its target when it is called, not before."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return resolve(target)(*args, **kwargs)

    return call


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0, or 2 for a user's mistake, or 130 after Ctrl-C."""
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
    try:
        command = COMMANDS.get(arguments[0])
        if command is None:
            near = difflib.get_close_matches(arguments[0], COMMANDS, 1)
            raise QanetError(
                f"no command {arguments[0]!r}{f', did you mean {near[0]!r}?' if near else ''}",
                expected=f"one of {', '.join(COMMANDS)}",
                next_command=f"qanet {near[0] if near else '--help'}",
            )
        uses = {name: _lazily(target) for name, target in command.uses.items()}
        code = int(resolve(command.target)(arguments[1:], **uses) or 0)
        sys.stdout.flush()  # a reader that went away (qanet ... | head) is noticed here, not when Python exits
        return code
    except QanetError as error:
        print(f"error: {error.line()}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("qanet"):
            raise
        print(f"error: {error.name} is not installed; next: {_install_hint(arguments[0])}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file or a folder that cannot be used; whoever knows more has told it above
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


_shown: set[str] = set()


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """The project's own warnings as one line without a place in the code; all others as Python shows them."""
    if issubclass(category, QanetWarning):
        if str(message) not in _shown:  # once a command, however many engines it opens
            print(f"note: {message}", file=sys.stderr)
            _shown.add(str(message))
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")


def _install_hint(command: str) -> str:
    extras = {
        "train": "train",
        "export": "export",
        "val": "export",
        "calibrate": "calib",
        "qat": "train",
        "inspect": "train",
    }
    extra = extras.get(command)
    return f"pip install 'qanet-edge[{extra}]'" if extra else "pip install --upgrade qanet-edge"


def _help() -> str:
    lines = ["qanet: quality-aware human parsing on the edge", "", "usage: qanet COMMAND [ARGUMENTS]", ""]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "qanet COMMAND --help tells the arguments of each."])


if __name__ == "__main__":
    sys.exit(main())
