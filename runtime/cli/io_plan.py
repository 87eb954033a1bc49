"""Which input goes to which outputs: the addresses of a command line, sorted into streams."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qanet.errors import QanetError
from qanet.files import fitting_name
from qanet.paths import check_outputs, local_path
from qanet.runtime.video.frame import Source
from qanet.runtime.video.live import is_live
from qanet.runtime.video.outputs import DISPLAY, is_file
from qanet.runtime.video.sinks import PictureNames
from qanet.runtime.video.sources import STDIN

_SEVERAL = "qanet parse INPUT_URI INPUT_URI --output-dir FOLDER"
_LONGEST_ENDING = "-000.jsonl"  # what a stream's name may get behind it in a folder
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
        name = local_path(uri).stem
    short = fitting_name(re.sub(r"[^\w.-]+", "-", name).strip("-."), _LONGEST_ENDING)
    return short.removesuffix(_LONGEST_ENDING) or "stream"


def _names(inputs: list[str]) -> list[str]:
    """Unique names of the inputs."""
    names: list[str] = []
    for uri in inputs:
        name, number = _name(uri), 2
        while name.casefold() in map(str.casefold, names):  # some file systems do not tell A from a
            name, number = f"{_name(uri)}-{number}", number + 1
        names.append(name)
    return names


def check_overwrites(
    specs: list[StreamSpec], sources: Sequence[Source], also_read: list[str | None], models: list[Path]
) -> None:
    """Raise QanetError if an output would overwrite an input, a file of a model, or another output.

    Args:
        sources: of the streams, in the same order: photographs name the pictures that will be written.
        also_read: files that are read besides the inputs.
        models: bundles that are in use.
    """
    read: list[Path | str | None] = list(also_read)
    written: list[Path | None] = []
    for spec, source in zip(specs, sources):
        photographs = getattr(source, "paths", [])
        if spec.input != STDIN and not is_live(spec.input):
            read += [local_path(spec.input), *photographs]
        written.append(Path(spec.results) if spec.results else None)
        for output in filter(None, (spec.output, spec.labels)):
            if output == STDIN:
                expected = "a file, a folder, display:// or rtsp://; ./- is a folder of that name"
                raise QanetError("the overlay cannot go to standard output", expected=expected, got=output)
            if is_file(output):
                written += _files(local_path(output), photographs)
    check_outputs(written, read=read, inside=models)


def _files(output: Path, photographs: Sequence[Path]) -> list[Path]:
    """The files that an output becomes; of a video's numbered pictures the first stands for all."""
    if output.suffix and not output.is_dir():
        return [output]
    names = PictureNames()
    frames = enumerate(path.name for path in photographs) if photographs else [(0, "0")]
    return [output / names.name(index, name) for index, name in frames]
