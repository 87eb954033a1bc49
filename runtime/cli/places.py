"""What goes where: the addresses of a command line, sorted into the inputs and outputs of each stream."""

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

from qanet.errors import QanetError
from qanet.runtime.video.sinks.open import DISPLAY, is_file
from qanet.runtime.video.sources.addresses import is_live
from qanet.runtime.video.sources.open import STDIN

_SEVERAL = "qanet parse INPUT_URI INPUT_URI --output-dir FOLDER"
_SUFFIX = {"image": ".png", "folder": ""}  # of the overlay in an output folder; .webm for all that moves


@dataclass(frozen=True)
class Place:
    """One stream: where it comes from and where its results go.

    Attributes:
        name: tells the streams apart; of files, too.
        folder: where `output` and `results` go, under the stream's name, once its kind is known.
    """

    name: str
    input: str
    output: str | None = None
    results: str | None = None
    labels: str | None = None
    folder: str | None = None

    def settled(self, kind: str) -> "Place":
        """With the files of `folder` named, for a source of this kind."""
        if self.folder is None:
            return self
        base = f"{self.folder}/{self.name}"
        return replace(self, output=base + _SUFFIX.get(kind, ".webm"), results=f"{base}.jsonl")


def places(args: argparse.Namespace) -> list[Place]:
    """The streams of a command line.

    Raises:
        QanetError: addresses, or outputs, that do not fit the number of streams.
    """
    addresses = [args.input, *args.more]
    if args.streams is None and args.output_dir is None:
        if len(addresses) > 2:
            raise QanetError(
                "too many addresses", expected="INPUT_URI [OUTPUT_URI]", got=len(addresses), next_command=_SEVERAL
            )
        output = addresses[1] if len(addresses) > 1 else None
        return [Place(_name(args.input), args.input, output, args.results, args.labels)]
    inputs, outputs = _inputs_and_outputs(addresses, args.streams or len(addresses))
    several = len(inputs) > 1
    if outputs and args.output_dir:
        raise QanetError("two places for the overlays", expected="--output-dir, or OUTPUT_URIs", got=" ".join(outputs))
    if args.results and (several or args.output_dir):
        raise QanetError(
            "--results is one file", expected="a file for each stream", got=args.results, next_command=_SEVERAL
        )
    if inputs.count(STDIN) > 1:
        raise QanetError("standard input can be read only once", expected="one -", got=inputs.count(STDIN))
    names = _names(inputs)
    return [
        Place(
            name,
            uri,
            outputs[number] if outputs else None,
            args.results,
            f"{args.labels}/{name}" if args.labels and several else args.labels,
            args.output_dir,
        )
        for number, (name, uri) in enumerate(zip(names, inputs))
    ]


def _inputs_and_outputs(addresses: list[str], count: int) -> tuple[list[str], list[str]]:
    """The first `count` are inputs, or the only one is, `count` times; an output each, or one window for all."""
    if len(addresses) == 1:
        return addresses * count, []
    inputs, outputs = addresses[:count], addresses[count:]
    if len(inputs) < count:
        raise QanetError(f"--streams {count} wants as many inputs", expected=f"{count}, or one", got=len(inputs))
    if outputs == [DISPLAY]:
        outputs = outputs * count
    if outputs and len(outputs) != count:
        raise QanetError(
            "the outputs do not fit the inputs",
            expected=f"{count} OUTPUT_URIs, or {DISPLAY}, or --output-dir FOLDER",
            got=" ".join(outputs),
            next_command=_SEVERAL,
        )
    return inputs, outputs


def _name(uri: str) -> str:
    """A short name that can be a file's; of an address all but the password."""
    if uri == STDIN:
        return "stdin"
    scheme, separator, rest = uri.rpartition("://")
    if separator and is_live(uri):
        name = f"csi-{rest}" if scheme == "csi" else rest.partition("?")[0].rpartition("@")[2]
        name = name.removeprefix("/dev/")
    else:
        name = Path(rest).stem
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "stream"


def _names(inputs: list[str]) -> list[str]:
    """A name each, none of them twice."""
    names: list[str] = []
    for uri in inputs:
        name, number = _name(uri), 2
        while name in names:
            name, number = f"{_name(uri)}-{number}", number + 1
        names.append(name)
    return names


def check_overwrites(settled: list[Place], also_read: list[str | None]) -> None:
    """QanetError when what is written would replace what is read, or one output another."""
    inputs = [place.input.removeprefix("file://") for place in settled if place.input != STDIN]
    read = {Path(path).resolve(): path for path in (*inputs, *also_read) if path}
    written: dict[Path, str] = {}
    for place in settled:
        outputs = (place.output if place.output and is_file(place.output) else None, place.results, place.labels)
        for output in filter(None, outputs):
            path = Path(output.removeprefix("file://")).resolve()
            if path in read:
                raise QanetError(
                    f"{path.name} would be overwritten", expected="an output other than the input", got=read[path]
                )
            if path in written:
                raise QanetError("two outputs are one file", expected="two names", got=output)
            written[path] = output
