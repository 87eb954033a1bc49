"""Which input goes to which outputs: the addresses of a command line, sorted into streams."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qanet.errors import QanetError
from qanet.runtime.video.live import is_live
from qanet.runtime.video.outputs import DISPLAY, is_file
from qanet.runtime.video.sources import STDIN

_SEVERAL = "qanet parse INPUT_URI INPUT_URI --output-dir FOLDER"
_SUFFIX = {"image": ".png", "folder": ""}  # of the overlay in an output folder; .mp4 for videos and live sources


@dataclass(frozen=True)
class StreamSpec:
    """One stream: its input and its outputs.

    Attributes:
        name: unique among the streams, and usable as a file name.
        folder: where `output` and `results` go, named after the stream; see `with_outputs`.
    """

    name: str
    input: str
    output: str | None = None
    results: str | None = None
    labels: str | None = None
    folder: str | None = None

    def with_outputs(self, kind: str) -> "StreamSpec":
        """Name the files in `folder` for a source of this kind."""
        if self.folder is None:
            return self
        base = f"{self.folder}/{self.name}"
        return replace(self, output=base + _SUFFIX.get(kind, ".mp4"), results=f"{base}.jsonl")


def stream_specs(
    first_input: str,
    more: Sequence[str],
    streams: int | None = None,
    output_dir: str | None = None,
    results: str | None = None,
    labels: str | None = None,
) -> list[StreamSpec]:
    """The streams of a command line.

    Args:
        first_input: the first address.
        more: the other addresses; how many of them are inputs depends on `streams` and `output_dir`.
        streams: number of inputs.
        output_dir: folder for overlay and JSON lines of every stream.
        results: file of JSON lines.
        labels: folder of label maps; with several streams each has a folder inside it.
    Raises:
        QanetError: inputs or outputs do not fit the number of streams.
    """
    addresses = [first_input, *more]
    if streams is None and output_dir is None:
        if len(addresses) > 2:
            raise QanetError(
                "too many addresses", expected="INPUT_URI [OUTPUT_URI]", got=len(addresses), next_command=_SEVERAL
            )
        output = addresses[1] if len(addresses) > 1 else None
        return [StreamSpec(_name(first_input), first_input, output, results, labels)]
    inputs, outputs = _inputs_and_outputs(addresses, streams or len(addresses))
    several = len(inputs) > 1
    if outputs and output_dir:
        raise QanetError("two places for the overlays", expected="--output-dir, or OUTPUT_URIs", got=" ".join(outputs))
    if results and (several or output_dir):
        raise QanetError("--results is one file", expected="one file per stream", got=results, next_command=_SEVERAL)
    if inputs.count(STDIN) > 1:
        raise QanetError("standard input can be read only once", expected="one -", got=inputs.count(STDIN))
    return [
        StreamSpec(
            name,
            uri,
            outputs[number] if outputs else None,
            results,
            f"{labels}/{name}" if labels and several else labels,
            output_dir,
        )
        for number, (name, uri) in enumerate(zip(_names(inputs), inputs))
    ]


def _inputs_and_outputs(addresses: list[str], count: int) -> tuple[list[str], list[str]]:
    """The first `count` addresses are inputs; a single address is repeated. Then one output per input, or a window."""
    if len(addresses) == 1:
        return addresses * count, []
    inputs, outputs = addresses[:count], addresses[count:]
    if len(inputs) < count:
        raise QanetError(f"--streams {count} needs as many inputs", expected=f"{count}, or one", got=len(inputs))
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
    """A short name, usable as a file name; a password in the address is left out."""
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
    """Unique names of the inputs."""
    names: list[str] = []
    for uri in inputs:
        name, number = _name(uri), 2
        while name in names:
            name, number = f"{_name(uri)}-{number}", number + 1
        names.append(name)
    return names


def check_overwrites(specs: list[StreamSpec], also_read: list[str | None]) -> None:
    """Raise QanetError if an output would overwrite an input or another output."""
    inputs = [spec.input.removeprefix("file://") for spec in specs if spec.input != STDIN]
    read = {Path(path).resolve(): path for path in (*inputs, *also_read) if path}
    written: dict[Path, str] = {}
    for spec in specs:
        outputs = (spec.output if spec.output and is_file(spec.output) else None, spec.results, spec.labels)
        for output in filter(None, outputs):
            path = Path(output.removeprefix("file://")).resolve()
            if path in read:
                raise QanetError(
                    f"{path.name} would be overwritten", expected="an output other than the input", got=read[path]
                )
            if path in written:
                raise QanetError("two outputs are one file", expected="two names", got=output)
            written[path] = output
