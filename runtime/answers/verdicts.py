"""Comparison of an engine's outputs with the known ones, and the cache of verdicts.

Compared are: of maps the RMS of the error over the RMS of the value; of scores, which lie between 0 and 1, the largest
error; of part scores the mean error over the parts that both sides see, since small ones come and go; of labels the
share of pixels that differ; of a detector, among the candidates with a score of 0.2 or more on either side, the largest
error of a score, and of a box in sides of it.

Verdicts are kept in $XDG_CACHE_HOME/qanet/verdicts (~/.cache without it). A verdict holds for one engine on one
machine: the file's name is a hash of the engine's bytes, the runtime and its version, the CPU or GPU with its driver,
the machine and the known answers, so any change causes a new test. Without a writable cache every load tests.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import write_bytes

_VERSION = 1  # raised when the test or its limits change
_MAX_BYTES = 1 << 16
_SWITCHES = ("ONEDNN_", "DNNL_", "OV_", "ORT_", "NVIDIA_TF32_OVERRIDE")  # variables that change what a library computes


_ignores_cache: ContextVar[bool] = ContextVar("ignores_cache", default=False)


@dataclass(frozen=True)
class Verdict:
    """The result of a known-answer test.

    Attributes:
        right: every difference is within its limit.
        against: whose answers were expected: "fp32", "int8" or "int8-no-vnni".
        differences: output -> (difference, limit), see the module's description.
        agreement: share of the foreground's pixels labelled as in FP32; None for a detector.
        from_fp32: relative RMS of the logits against FP32's, quantisation and all; None without logits.
        least_ms: least time of one picture, milliseconds.
    """

    right: bool
    against: str
    differences: dict[str, tuple[float, float]]
    agreement: float | None
    from_fp32: float | None
    least_ms: float

    @property
    def worst(self) -> tuple[str, float, float]:
        """The output that used up most of its limit, its difference and its limit."""
        name = max(self.differences, key=lambda n: _used(*self.differences[n]))
        return name, *self.differences[name]

    def __str__(self) -> str:
        name, value, limit = self.worst
        shown = f"{name} off by {value:.3g}, limit {limit:g}"
        return (
            shown if self.agreement is None else f"{shown}; {self.agreement:.0%} of the foreground labelled as in fp32"
        )


def _used(value: float, limit: float) -> float:
    if limit > 0 and value == value:
        return value / limit
    return 0.0 if value == 0 else float("inf")


def verdict_key(*facts: object) -> str:
    """Hex digest of what a verdict depends on, this machine and the libraries' switches included."""
    switches = sorted((k, v) for k, v in os.environ.items() if k.startswith(_SWITCHES))
    text = json.dumps([_VERSION, machine_identity(), switches, *facts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@functools.cache
def machine_identity() -> str:
    """Names this machine: its CPU with its instruction sets, and the operating system's own id for it."""
    host = platform.node()
    with contextlib.suppress(OSError):
        host = Path("/etc/machine-id").read_text().strip() or host
    cpu = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                break  # the first core stands for all
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "flags", "Features", "CPU part", "CPU implementer"):
                cpu.append(value.strip())
    return hashlib.sha256(json.dumps([host, cpu]).encode()).hexdigest()[:20]


def recall(key: str) -> Verdict | None:
    """The verdict that this user stored on this machine; None where there is none that can be believed."""
    text = None if _ignores_cache.get() else read_own(_path(key), _MAX_BYTES)
    if text is None:
        return None
    try:
        document = json.loads(text)
        return _verdict(document) if document.pop("key") == key else None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def read_own(path: Path, most_bytes: int) -> bytes | None:
    """The bytes of a regular file that this user owns and only this user may write; None for any other."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
        if foreign or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not stat.S_ISREG(status.st_mode):
            return None
        return file.read(most_bytes) if status.st_size <= most_bytes else None


def remember(key: str, verdict: Verdict) -> None:
    """Store a verdict where that is possible; two processes that do so at once store the same."""
    text = json.dumps({"key": key, **asdict(verdict)}, sort_keys=True)
    with contextlib.suppress(QanetError, OSError):  # a full disk or a read-only home: the next load tests again
        write_bytes(_path(key), text.encode())


def _verdict(document: dict[str, Any]) -> Verdict:
    differences = {str(name): (float(value), float(limit)) for name, (value, limit) in document["differences"].items()}
    is_right = all(value <= limit for value, limit in differences.values())
    if document["right"] is not is_right or not differences:
        raise ValueError("no verdict")
    shares = [None if document[name] is None else float(document[name]) for name in ("agreement", "from_fp32")]
    agreement, from_fp32 = shares
    least_ms = float(document["least_ms"])
    return Verdict(document["right"], str(document["against"]), differences, agreement, from_fp32, least_ms)


def cache_folder() -> Path:
    """Where verdicts, and answers of bundles that bring none, are kept."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:  # the base directory specification: a relative path is to be ignored
        base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    except RuntimeError:  # no home: a place that cannot be written
        base = Path(os.devnull)
    return base / "qanet" / "verdicts"


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.json"


@contextlib.contextmanager
def asked_anew() -> Iterator[None]:
    """For the block, no verdict is recalled: every engine is tested, and the new verdicts are kept."""
    token = _ignores_cache.set(True)
    try:
        yield
    finally:
        _ignores_cache.reset(token)


# Against a graph's own answers. Seen with the bundled networks and R50c in OpenVINO, logits: FP32 5e-7, FP16 8e-4, BF16
# 2e-2, INT8 3e-2; with INT8 on a CPU whose 16-bit sums saturate: 0.34.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"map": 2e-3, "score": 2e-3, "label": 1e-3, "box": 2e-3},
    "fp16": {"map": 1e-2, "score": 1e-2, "label": 1e-2, "box": 1e-2},
    "bf16": {"map": 5e-2, "score": 5e-2, "label": 5e-2, "box": 5e-2},
    "int8": {"map": 6e-2, "score": 5e-2, "label": 5e-2, "box": 6e-2},
    "fp8": {"map": 1e-1, "score": 1e-1, "label": 1e-1, "box": 1e-1},
}
COARSER = 2.0  # so many times as much where a narrow graph can only be compared with FP32
_CANDIDATE = 0.2


@dataclass(frozen=True)
class Difference:
    """How far an output is from what is known, and how far it may be."""

    name: str
    value: float
    limit: float

    @property
    def departs(self) -> bool:
        """Also for NaN."""
        return not self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} (limit {self.limit:g})"


def compare(
    reference: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]], limits: Mapping[str, float]
) -> list[Difference]:
    """Each output of the engine against the reference, in the engine's order.

    Args:
        limits: one entry of TOLERANCES.
    Raises:
        QanetError: an output of another shape.
    """
    differences = []
    for name, values in got.items():
        expected, found = np.asarray(reference[name]), np.asarray(values)
        if expected.shape != found.shape:
            raise QanetError(f"the engine's {name} has another shape", expected=expected.shape, got=found.shape)
    detects = {"boxes", "scores"} <= got.keys()
    likely = np.maximum(reference["scores"], got["scores"]) >= _CANDIDATE if detects else None
    for name, values in got.items():
        expected, found = np.asarray(reference[name], np.float64), np.asarray(values, np.float64)
        if detects and name in ("boxes", "scores"):
            assert likely is not None
            kind = "box" if name == "boxes" else "score"
            value = _worst_box(expected[likely], found[likely]) if kind == "box" else _worst(expected, found, likely)
        elif name == "labels":
            kind, value = "label", float((expected != found).mean())
        elif expected.ndim <= 2:
            error = np.abs(expected - found) / max(1.0, float(np.abs(expected).max(initial=0)))  # of odd graphs
            if error.ndim == 2:
                seen = (expected > 0) & (found > 0) | ~np.isfinite(found)
                error = error[seen].mean(keepdims=True) if seen.any() else np.zeros(1)
            kind, value = "score", float(error.max(initial=0))
        else:
            kind, value = "map", relative_rms(expected, found)
        differences.append(Difference(name, value, limits[kind]))
    return differences


def relative_rms(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """RMS of the error over the RMS of the value; 0 for two tensors of zeros."""
    exact = expected.astype(np.float64)
    error, size = np.sqrt(np.square(got - exact).mean()), np.sqrt(np.square(exact).mean())
    return float(error / size) if size else float(error > 0)


def label_agreement(reference: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float | None:
    """Share of the foreground's pixels with equal labels, by `labels` or else the largest logit; None without either.

    The foreground is what either side does not call background.
    """
    if "labels" in reference and "labels" in got:
        first, second = np.asarray(reference["labels"]), np.asarray(got["labels"])
    elif "logits" in reference and "logits" in got:
        if np.shape(got["logits"])[1] == 1:
            return None  # of masks, which have no classes
        first, second = (np.asarray(side["logits"]).argmax(1) for side in (reference, got))
    else:
        return None
    foreground = (first > 0) | (second > 0)
    return float((first == second)[foreground].mean()) if foreground.any() else 1.0


def _worst(expected: NDArray[Any], found: NDArray[Any], where: Any) -> float:
    return float(np.abs(expected - found)[where].max(initial=0))


def _worst_box(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Largest error of a corner over the longer side of the box it belongs to."""
    side = np.maximum((expected[:, 2:] - expected[:, :2]).max(1, initial=1), 1)
    return float((np.abs(expected - found).max(1, initial=0) / side).max(initial=0))
