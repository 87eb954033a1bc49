"""Choice of a bundle's engine: by the installed TensorRT, this GPU, the precision and the outputs.

Everything is read from the manifest, before a byte of an engine is deserialised.
"""

import importlib
import importlib.util
import shlex
from collections import deque
from collections.abc import Callable
from typing import Any

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}  # runtime -> Python module; the first is preferred
HOST_CODE = "engine_host_code_allowed"  # option of a version-compatible engine, and the property that admits it

_Entry = dict[str, Any]
_OF_A_BUILD = ("version", "targets", "inputs", "outputs", "options", "graph_sha256")  # equal in all plans of a build


def choose_plans(
    bundle: Bundle, precision: str, outputs: tuple[str, ...] | None, target: str
) -> tuple[Any, list[_Entry]]:
    """The library's module and the manifest's entries of the plans to load.

    Args:
        bundle: the bundle.
        precision: "fp32", "fp16" or "int8".
        outputs: outputs that the engine must have; None for any.
        target: compute capability of the GPU, such as "sm_87".
    Returns:
        The module; the entries of one build, that with the smallest batches first: one, or one for each bucket.
    Raises:
        QanetError: no TensorRT is installed, or no engine of the bundle fits; the error names the difference and the
            command that builds one.
    """
    installed = [runtime for runtime, module in MODULES.items() if importlib.util.find_spec(module) is not None]
    if not installed:
        raise QanetError(
            "TensorRT is not installed",
            expected=f"the module {' or '.join(MODULES.values())}",
            got="neither",
            next_command="pip install 'qanet-edge[tensorrt]' (JetPack brings its own)",
        )
    built = {entry["runtime"] for entry in bundle.engines}
    refusals = []
    for runtime in [runtime for runtime in installed if runtime in built] or installed[:1]:
        library = _load_library(runtime)
        try:
            return library, _fitting_entries(bundle, runtime, library.__version__, precision, outputs, target)
        except QanetError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _load_library(runtime: str) -> Any:
    try:
        return importlib.import_module(MODULES[runtime])
    except (ImportError, OSError) as error:  # the package is installed, but a library that it loads is not
        raise QanetError(f"{runtime} cannot be loaded", got=error, next_command="qanet doctor") from error


def _fitting_entries(
    bundle: Bundle, runtime: str, version: str, precision: str, outputs: tuple[str, ...] | None, target: str
) -> list[_Entry]:
    """Filter the entries by one demand after the other; the first that no entry meets is the error."""
    wanted = set(outputs or ())
    demands: tuple[tuple[str, Callable[[_Entry], bool], object, Callable[[_Entry], str]], ...] = (
        ("at all", lambda e: e["runtime"] == runtime, runtime, lambda e: e["runtime"]),
        (f"in {precision}", lambda e: e["precision"] == precision, precision, lambda e: e["precision"]),
        ("for this GPU", lambda e: target in e["targets"], target, lambda e: "+".join(e["targets"])),
        (f"for {runtime} {version}", lambda e: _version_fits(e, version), version, lambda e: e["version"]),
        (
            "with the outputs asked for",
            lambda e: wanted <= set(e["outputs"]),
            ", ".join(outputs or ()),
            lambda e: ", ".join(e["outputs"]),
        ),
        ("with its weights", lambda e: not e.get("stripped"), "weights", lambda e: "none: qanet build NAME --refit"),
    )
    left = list(bundle.engines)
    for what, fits, expected, describe in demands:
        fitting = [entry for entry in left if fits(entry)]
        if not fitting:
            got = " or ".join(dict.fromkeys(describe(entry) for entry in left)) or "no engines"
            raise QanetError(
                f"{bundle.name} has no {runtime} engine {what}",
                expected=expected,
                got=got,
                next_command=_build_command(bundle, runtime, precision, wanted, target),
            )
        left = fitting
    first = left[0]
    if batches_of(first) is None:  # nothing to choose by
        return [first]
    build = [e for e in left if batches_of(e) and all(e.get(key) == first.get(key) for key in _OF_A_BUILD)]
    return sorted(build, key=lambda entry: max(high for _, high in batches_of(entry) or ()))


def batches_of(entry: _Entry) -> tuple[tuple[int, int], ...] | None:
    """(Least, most) batch of each profile of a plan; None where the manifest has none.

    Raises:
        QanetError: the manifest's batches are malformed.
    """
    given = entry.get("batches")
    if not given:
        return None
    try:
        return tuple((int(low), int(high)) for low, _, high in given)
    except (TypeError, ValueError) as error:
        raise QanetError(
            f"bad batches of {entry['file']} in the manifest", expected="[min, opt, max], ...", got=given
        ) from error


def _version_fits(entry: _Entry, installed: str) -> bool:
    """Equal, or older where the engine is version-compatible: 10 runs on 11, never the reverse."""
    if entry["version"] == installed:
        return True
    return needs_host_code(entry) and _numbers(entry["version"]) <= _numbers(installed)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def needs_host_code(entry: _Entry) -> bool:
    """Whether loading the engine runs machine code out of its file, as a version-compatible one does."""
    return str(entry.get("options", {}).get(HOST_CODE, "")).lower() == "true"


def _build_command(bundle: Bundle, runtime: str, precision: str, wanted: set[str], target: str) -> str:
    name = bundle.name if bundle.is_shipped else shlex.quote(str(bundle.path))
    command = f"qanet build {name} --precision {precision} --runtime {runtime}"
    if runtime == "tensorrt-rtx":
        command += f" --target {target}"
    return command if wanted <= set(KERNEL_TAIL_OUTPUTS) else f"{command} --tail graph"


class LibraryLog:
    """The last messages of a TensorRT library, to quote in errors; severities 0 internal error .. 4 verbose."""

    _ERROR, _WARNING = 1, 2

    def __init__(self, library: Any):
        self._entries: deque[tuple[int, int, str]] = deque(maxlen=100)  # number, severity, text
        self._count = 0
        record = self._record

        class RecordingLogger(library.ILogger):
            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                record(int(severity), message)

        self.logger = RecordingLogger()

    def _record(self, severity: int, text: str) -> None:
        self._count += 1
        if severity <= self._WARNING:
            self._entries.append((self._count, severity, text.strip()))

    def mark(self) -> int:
        """Where the log stands now, for `since`."""
        return self._count

    def since(self, mark: int) -> str:
        """The last three errors after a mark, or warnings where there are none."""
        recent = [(severity, text) for number, severity, text in self._entries if number > mark]
        errors = [text for severity, text in recent if severity <= self._ERROR]
        return "; ".join((errors or [text for _, text in recent])[-3:]) or "no message from TensorRT"


_logs: dict[Any, LibraryLog] = {}


def library_log(library: Any) -> LibraryLog:
    """The one log of a library: TensorRT keeps the first logger it is given for the life of the process."""
    if library not in _logs:
        _logs.setdefault(library, LibraryLog(library))
    return _logs[library]
