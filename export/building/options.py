"""Options of a build, and the Orders they become: one for each runtime and precision."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qanet.bundle import NO_VNNI, OPTIONAL_PRECISIONS, PRECISIONS, Bundle
from qanet.cpu import sums_saturate
from qanet.errors import QanetError
from qanet.export.backends.openvino import deliverable
from qanet.export.backends.tensorrt_options import SHARED_CACHE, Options
from qanet.export.building.timing import check_float_rest
from qanet.labels import PERSON_BOX1
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS

FLOAT_RESTS = ("auto", "bf16", "f32")
RUNTIMES = ("openvino", "tensorrt", "tensorrt-rtx")
TAILS = ("kernel", "graph")


@dataclass(frozen=True)
class BuildOptions:
    """Which engines to build, and how.

    Attributes:
        precisions: of "fp32", "fp16", "int8", "bf16", "fp8".
        runtimes: of RUNTIMES; empty: TensorRT where it is installed, else OpenVINO.
        targets: GPUs such as "sm_86" to build for; None: the runtime's own choice.
        tail: "kernel" keeps the outputs that the runtime's score kernels read, "graph" all outputs.
        float_rest: type of the layers of an INT8 engine of OpenVINO that are not INT8: "bf16", "f32", or "auto" for the
            one that is measured to be faster.
        tensorrt: options of TensorRT engines.
        low_memory: build TensorRT engines one batch bucket at a time, each in a child process. The smaller limits that
            go with it are `qanet.export.backends.tensorrt_options.low_memory`.
        verify: compare each engine with ONNX Runtime before it is kept.
        images: folder of crops of people to verify with; None: synthetic ones.
        save_engine: also write the engine to this file; for one runtime and one precision.
        lock_timeout_s: seconds to wait for another build into the same bundle.
        show_progress: show a progress bar of TensorRT's builder.
    Raises:
        QanetError: an unknown name, or options that contradict each other.
    """

    precisions: Sequence[str] = ("fp32", "fp16", "int8")
    runtimes: Sequence[str] = ()
    targets: Sequence[str] | None = None
    tail: str = "kernel"
    float_rest: str = "auto"
    tensorrt: Options = field(default_factory=lambda: Options(timing_cache=SHARED_CACHE))
    low_memory: bool = False
    verify: bool = False
    images: Path | None = None
    save_engine: Path | None = None
    lock_timeout_s: float = 600.0
    show_progress: bool = False

    def __post_init__(self) -> None:
        known_precisions = (*PRECISIONS, *OPTIONAL_PRECISIONS)
        if not self.precisions:
            raise QanetError(f"no precision given; choose from {', '.join(known_precisions)}")
        for kind, names, known in (
            ("precision", self.precisions, known_precisions),
            ("runtime", self.runtimes, RUNTIMES),
            ("tail", (self.tail,), TAILS),
            ("float rest", (self.float_rest,), FLOAT_RESTS),
        ):
            for name in names:
                if name not in known:
                    raise QanetError(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
        if self.tensorrt.strip_weights and self.verify:
            raise QanetError("an engine without weights cannot be verified", next_command="leave --verify out")
        if self.tensorrt.version_compatible and self.verify:
            raise QanetError(
                "a version-compatible engine runs machine code of its own, which --verify does not allow",
                next_command="verify one that is not version-compatible",
            )

    def orders(self, bundle: Bundle) -> list["Order"]:
        """One order for each runtime and precision."""
        runtimes = self.runtimes or ["tensorrt" if importlib.util.find_spec("tensorrt") else "openvino"]
        detects, saturates = bundle.labels == PERSON_BOX1, "openvino" in runtimes and sums_saturate()
        return [
            Order(runtime, precision, self, detects, saturates and runtime == "openvino")
            for runtime in runtimes
            for precision in self.precisions
        ]


@dataclass(frozen=True)
class Order:
    """The engines of one runtime and one precision: a single one, or one per batch bucket.

    Attributes:
        detects: the bundle is a person detector, whose only tail is in the graph.
        no_vnni: take INT8 weights for a CPU whose 16-bit sums would saturate.
    """

    runtime: str
    precision: str
    options: BuildOptions
    detects: bool = False
    no_vnni: bool = False

    @property
    def graph(self) -> str:
        """Key of the bundle's graph to build from."""
        return NO_VNNI if self.no_vnni and self.precision == "int8" else self.precision

    @property
    def has_another_graph(self) -> bool:
        """Whether an engine with wrong answers is built again from the graph for CPUs without VNNI."""
        return self.runtime == "openvino" and self.graph == "int8"

    @property
    def outputs(self) -> tuple[str, ...] | None:
        """Outputs to keep, None for all."""
        return KERNEL_TAIL_OUTPUTS if self.options.tail == "kernel" and not self.detects else None

    @property
    def has_float_rest(self) -> bool:
        """Whether a part of the graph computes in a type that is this build's to choose."""
        return self.runtime == "openvino" and self.precision == "int8"

    @property
    def delivered(self) -> str:
        """The precision that counts as delivered: OpenVINO takes the 16-bit type that the CPU has."""
        return deliverable(self.precision, self.outputs) if self.runtime == "openvino" else self.precision

    @property
    def lacks(self) -> str | None:
        """Why this machine cannot deliver the precision, as a sentence; None where it can.

        A 16-bit engine that computes in FP32 would be a second copy of the FP32 engine, so it is not built.
        """
        if self.precision not in ("fp16", "bf16") or self.delivered != "fp32":
            return None
        return f"{self.precision} was not built: this CPU computes FP32 only"


def check_runtimes(orders: Sequence[Order]) -> None:
    """Check libraries, GPUs and options before a graph is written.

    Raises:
        QanetError: a library is missing, or lacks a target, a precision or an option.
    """
    rest = orders[0].options.float_rest if orders else "auto"
    if rest != "auto" and not any(order.has_float_rest for order in orders):
        asked = ", ".join(f"{order.precision} of {order.runtime}" for order in orders)
        raise QanetError("--float-rest is for INT8 engines of OpenVINO", expected="int8 of openvino", got=asked)
    for order in orders:
        if order.runtime == "openvino":
            deliverable(order.precision)
            check_float_rest(rest if order.has_float_rest else "auto")
            continue
        from qanet.export.backends.tensorrt_library import check_targets, load_library, this_gpu

        trt = load_library(order.runtime)
        order.options.tensorrt.check_runtime(trt, order.runtime)
        check_targets(trt, order.runtime, order.options.targets)
        if order.options.verify:
            this_gpu()  # an engine is verified by running it
