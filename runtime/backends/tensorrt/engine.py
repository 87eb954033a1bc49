"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the plans of one precision, each batch on the smallest that takes it.

Most builds make one plan with all its buckets inside; a build for little memory makes one for each. Plans share a GPU
context: they run one after the other anyway, and the kernels around them need one stream.

A plan is opened by the first batch that needs it, and stays open. Each holds the network's weights once more, and
scratch memory and buffers of its own: with all open, a machine of little memory would hold the network once per bucket,
and a camera that sees one person at a time would pay for the others. The price is that the first batch of a new size
waits for its plan, and that memory may run out only then. The smallest is opened at once, so that faults of all plans
are reported while loading.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import Origin, Outputs, Reopened
from qanet.runtime.backends.tensorrt.choice import HOST_CODE, batches_of, choose_plans, needs_host_code
from qanet.runtime.backends.tensorrt.plan import layer_profiler, merge_information
from qanet.runtime.backends.tensorrt.session import Session
from qanet.runtime.cuda.device import Device, open_device
from qanet.runtime.cuda.gpu_context import Closing, DeviceArray, GpuContext

Batches = tuple[tuple[int, int], ...]  # (least, most) rows of each profile


@dataclass
class PlanFile:
    """A plan of the bundle.

    Attributes:
        file: its name in the bundle.
        batches: by the manifest; None where it has none, which is allowed for a single plan.
        read: returns its bytes, checked.
        session: the opened plan, None before.
    """

    file: str
    batches: Batches | None
    read: Callable[[], bytes]
    session: Session | None = None


class TensorRtEngine(Closing, Reopened):
    """A loaded engine; calls from several threads take turns.

    Close it, or use it in a `with`, to free GPU memory at a moment of your choice; otherwise it is closed when it is
    collected or when the process ends.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        device: where to run.
        plans: those of one build, that with the smallest batches first.
        host_code: admit plans that bring machine code of their own.
        crop_hw: (H, W) pixels.
        wanted: outputs to bring back to the host; None for all. The others stay on the GPU.
        runtime: "tensorrt" or "tensorrt-rtx".
        precision: by the manifest.
        origin: the files and the machine.

    Attributes:
        gpu: the stream and memory of the engine, which kernels before and after it share.
        outputs: names of the arrays that `run` returns.
        max_batch: the most crops the engine takes at once; `run` splits larger batches.
        test_plan: called with the batch sizes of a plan that was just opened, before its first result; raises where
            its outputs are wrong.

    Raises:
        QanetError: the library refuses the smallest plan, or memory runs out.
    """

    def __init__(
        self,
        library: Any,
        device: Device,
        plans: Sequence[PlanFile],
        host_code: bool,
        crop_hw: tuple[int, int],
        wanted: tuple[str, ...] | None,
        runtime: str,
        precision: str,
        origin: Origin | None = None,
    ):
        self.runtime, self.precision, self.origin = runtime, precision, origin
        self._library, self._plans = library, list(plans)
        self._host_code, self._crop_shape, self._wanted = host_code, (*crop_hw, 3), wanted
        self._profiler: Any = None
        data = self._plans[0].read()  # a changed file is reported before anything is opened
        self.gpu = GpuContext(device, "the engine")
        with self.gpu.active("loading the engine"):
            try:
                first = self._open(self._plans[0], data)
            except BaseException:
                with suppress(device.driver.Error, QanetError):  # the first error is reported
                    self.gpu.close()
                raise
        self._finalizer = weakref.finalize(self, _release, self.gpu, self._plans)  # runs once, at exit too
        self.outputs = first.outputs
        if len(self._plans) == 1:
            self._plans[0].batches = first.batches
        self.max_batch = max(high for plan in self._plans for _, high in plan.batches or ())
        self.test_plan: Callable[[tuple[int, ...]], None] | None = None
        self._tested = set(self.batch_sizes)  # the caller tests the plans that are open from the start

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """Run one batch; blocks until the outputs are on the host.

        Args:
            crops: (N, H, W, 3) uint8 BGR, N of 1 or more.
            box_scores: (N,) float32; unused by an engine cut to logits and IoU.
        Returns:
            The engine's outputs by name, N rows each, float16 as float32, owned by the caller.
        Raises:
            QanetError: arrays of another shape or type, a closed engine, or a failure of TensorRT or CUDA; then
                nothing of the batch is in flight any more.
        """
        count = len(crops)
        feed: dict[str, NDArray] = {"crops": crops, "box_scores": np.asarray(box_scores, np.float32)}
        if crops.dtype != np.uint8 or crops.shape[1:] != self._crop_shape or count < 1:
            expected = f"(N, {', '.join(map(str, self._crop_shape))}) uint8"
            raise QanetError("crops do not fit the engine", expected=expected, got=f"{crops.shape} {crops.dtype}")
        if feed["box_scores"].shape != (count,):
            raise QanetError("box_scores do not fit the crops", expected=(count,), got=feed["box_scores"].shape)
        parts = []
        for start in range(0, count, self.max_batch):
            part = {name: values[start : start + self.max_batch] for name, values in feed.items()}
            rows = len(part["crops"])
            self._make_ready(rows)
            with self.gpu.active(f"running a batch of {rows}"):
                parts.append(self._session_for(rows).run(part, rows))
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    @contextmanager
    def run_on_device(
        self, count: int, box_scores: NDArray[np.float32], write_crops: Callable[[GpuContext, DeviceArray], None]
    ) -> Iterator[dict[str, DeviceArray]]:
        """Run one batch whose crops come from a kernel and whose outputs stay on the GPU.

        ```python
        with engine.run_on_device(len(boxes), scores, partial(queue_crops, image=frame, boxes=boxes)) as outputs:
            scored = score_people(engine.gpu, outputs["logits"], boxes, frame.shape[:2])
        ```

        Args:
            count: crops, 1 to max_batch.
            box_scores: (count,) float32; unused by an engine cut to logits and IoU.
            write_crops: given the GPU context and the (count, H, W, 3) uint8 crops on the GPU, queues their writing.
        Yields:
            The engine's outputs by name, in its own type; valid inside the block, which is this thread's turn.
        Raises:
            QanetError: as `run`.
        """
        self._check_count(count)
        scores = np.asarray(box_scores, np.float32)
        if scores.shape != (count,):
            raise QanetError("box_scores do not fit the crops", expected=(count,), got=scores.shape)
        self._make_ready(count)
        with (
            self.gpu.active(f"running a batch of {count}"),
            self._session_for(count).run_on_device({"box_scores": scores}, count, write_crops) as outputs,
        ):
            yield outputs

    def prepare(self, count: int) -> None:
        """Open the plan for a batch of `count` crops, so that the first such batch does not wait for it.

        Raises:
            QanetError: as `run_on_device`.
        """
        self._check_count(count)
        self._make_ready(count)

    @contextmanager
    def profiled(self, report: Callable[[str, float], None]) -> Iterator[str | None]:
        """For the block, which is this thread's turn, every run reports its layers and no CUDA graph runs.

        Plans that are opened in the block report too.

        Args:
            report: called with a layer's name and its milliseconds, once per layer and run.
        Yields:
            The inspector's report on the layers of the open plans, as JSON; None without one.
        Raises:
            QanetError: as `run`.
        """
        with self.gpu.active("profiling the engine"):
            self._profiler = layer_profiler(self._library, report)
            try:
                for session in self._sessions:
                    session.set_profiler(self._profiler)
                yield merge_information([session.information() for session in self._sessions])
            finally:
                self._profiler = None
                for session in self._sessions:
                    session.set_profiler(None)

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Batch sizes of static buckets that run as CUDA graphs by now: those that ran twice, where that works."""
        return tuple(sorted(batch for session in self._sessions for batch in session.graph_batches))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The largest batch of each profile of the open plans, ascending: sizes to test the engine with."""
        return tuple(sorted({high for session in self._sessions for _, high in session.batches}))

    @property
    def open_batches(self) -> tuple[int, ...]:
        """The largest batch of each open plan, ascending: one, unless the engine was built as one plan per bucket."""
        return tuple(sorted(max(high for _, high in session.batches) for session in self._sessions))

    def close(self) -> None:
        """Wait for what runs and free everything; a second call does nothing."""
        self._finalizer()

    @property
    def _sessions(self) -> list[Session]:
        return [plan.session for plan in self._plans if plan.session is not None]

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.max_batch:
            raise QanetError("the batch does not fit the engine", expected=f"1 to {self.max_batch} crops", got=count)

    def _make_ready(self, count: int) -> None:
        """Open the plan of a batch, and test it if it is new."""
        with self.gpu.turn:  # no other thread's batch runs on a plan before its test
            with self.gpu.active(f"preparing for a batch of {count}"):
                self._session_for(count)
            new = tuple(sorted(set(self.batch_sizes) - self._tested))
            if new:
                self._tested |= set(new)  # the test runs the engine, which calls this method again
                if self.test_plan is not None:
                    self.test_plan(new)

    def _session_for(self, count: int) -> Session:
        """The session of the smallest bucket that takes `count` rows, the narrowest of several; opened if need be."""
        fitting = [
            (high, -low, index)
            for index, plan in enumerate(self._plans)
            for low, high in plan.batches or ()
            if count <= high
        ]
        plan = self._plans[min(fitting)[2]]
        return self._open(plan, plan.read()) if plan.session is None else plan.session

    def _open(self, plan: PlanFile, data: bytes) -> Session:
        batches = plan.batches if len(self._plans) > 1 else None
        name = "the engine" if batches is None else f"the engine for batches up to {max(high for _, high in batches)}"
        session = Session(self._library, self.gpu, data, self._host_code, self._crop_shape, self._wanted, name)
        if batches is not None and session.batches != batches:
            session.free()
            raise QanetError(
                f"{plan.file} takes other batches than the manifest says", expected=batches, got=session.batches
            )
        if self._profiler is not None:
            session.set_profiler(self._profiler)
        plan.session = session
        return session


def _release(gpu: GpuContext, plans: Sequence[PlanFile]) -> None:
    """Wait for the stream, then free the open plans and the context."""
    with gpu.turn, gpu.device.active("closing the engine"), ExitStack() as steps:  # last to first
        steps.callback(gpu.close)
        for plan in plans:
            if plan.session is not None:
                steps.callback(plan.session.free)


def engine_from_bundle(
    bundle: Bundle,
    precision: str,
    outputs: tuple[str, ...] | None = None,
    *,
    index: int = 0,
    allow_host_code: bool = False,
) -> TensorRtEngine:
    """Load the bundle's engine for this GPU and the installed TensorRT.

    Args:
        bundle: an opened bundle.
        precision: "fp32", "fp16" or "int8".
        outputs: outputs that `run` returns; None for all. The engine's other outputs stay on the GPU.
        index: of the GPU among those that CUDA_VISIBLE_DEVICES leaves.
        allow_host_code: load a version-compatible engine, which runs machine code out of its file: for a bundle from
            a source that you trust.
    Raises:
        QanetError: no GPU, no TensorRT, no engine that fits (nothing was deserialised then), a file that was changed,
            or an engine that TensorRT refuses.
    """
    device = open_device(index)
    library, entries = choose_plans(bundle, precision, outputs, device.target)
    host_code = needs_host_code(entries[0])
    if host_code and not allow_host_code:
        raise QanetError(
            f"{entries[0]['file']} runs machine code of its own",
            expected=f"no {HOST_CODE}",
            got=HOST_CODE,
            next_command="engine_from_bundle(..., allow_host_code=True) if you trust the bundle, else qanet build",
        )
    plans = [PlanFile(e["file"], batches_of(e), partial(_read_plan, bundle, e["file"], len(entries))) for e in entries]
    sha256 = "+".join(bundle.manifest["files"][entry["file"]]["sha256"] for entry in entries)
    origin = Origin(precision, sha256, library.__version__, device.identity)
    runtime = entries[0]["runtime"]
    return TensorRtEngine(library, device, plans, host_code, bundle.input_hw, outputs, runtime, precision, origin)


def _read_plan(bundle: Bundle, file: str, plans: int) -> bytes:
    """A plan's bytes, its hash checked; one of several only as it was built with the others."""
    data = bundle.read(file)
    if plans > 1 and sha256_bytes(data) != bundle.manifest["files"][file]["sha256"]:
        # Another process saved the bundle since; plans opened before are of other weights or scales.
        raise QanetError(
            f"{bundle.name} was built again since it was opened",
            expected=f"{file} as it was then",
            got="another",
            next_command="load it again",
        )
    return data
