"""The plans of one precision; a batch runs on the plan with the smallest bucket that fits it.

Most builds make one plan with all its buckets inside; a build for little memory makes one for each. Plans share a GPU
context: they run one after the other anyway, and the kernels around them need one stream.

A plan is opened by the first batch that needs it, and stays open. Each holds the network's weights once more,
and scratch memory and buffers of its own: with all open, a machine of little memory would hold the network once per
bucket, and a camera that sees one person at a time would pay for the others. The price is that the first
batch of a new size waits for its plan, and that memory may run out only then. The smallest is opened at once,
so that faults of all plans are reported while loading.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.backends.base import Outputs
from qanet.runtime.backends.tensorrt.plan import layer_profiler, merge_information
from qanet.runtime.backends.tensorrt.session import Session
from qanet.runtime.cuda.device import Device
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext

Batches = tuple[tuple[int, int], ...]  # (least, most) rows of each profile


@dataclass
class PlanFile:
    """A plan of the bundle.

    Attributes:
        file: its name in the bundle.
        batches: by the manifest; None where it has none, which is allowed for a single plan.
        read: its bytes, checked.
        session: the opened plan, None before.
    """

    file: str
    batches: Batches | None
    read: Callable[[], bytes]
    session: Session | None = None


class Buckets:
    """Loaded with at least one plan open, released once; threads take turns.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        gpu: where to run.
        plans: those of one build, that with the smallest batches first.
        host_code: admit plans that bring machine code of their own.
        row_shape: (H, W, 3) of a crop.
        wanted: outputs to bring back to the host; None for all. The others stay on the GPU.

    Attributes:
        gpu: the stream and memory of the engine, for kernels before and after it.
        outputs: names of the outputs that `run` returns.
        max_batch: the most rows of a run.

    Raises:
        QanetError: the library refuses the smallest plan, or memory runs out.
    """

    def __init__(
        self,
        library: Any,
        device: Device,
        plans: Sequence[PlanFile],
        host_code: bool,
        row_shape: tuple[int, ...],
        wanted: tuple[str, ...] | None,
    ):
        self._library, self._plans = library, list(plans)
        self._host_code, self._row_shape, self._wanted = host_code, row_shape, wanted
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
        self.outputs = first.outputs
        if len(self._plans) == 1:
            self._plans[0].batches = first.batches
        self.max_batch = max(high for plan in self._plans for _, high in plan.batches or ())

    def prepare(self, count: int) -> None:
        """Open the plan for a batch of `count` rows, if it is not open yet.

        Raises:
            QanetError: as opening does, or the engine is closed.
        """
        with self.gpu.active(f"preparing for a batch of {count}"):
            self._session_for(count)

    def run(self, feed: dict[str, NDArray], count: int) -> Outputs:
        """One batch of `count` rows, at most max_batch; blocks until the outputs are on the host.

        Args:
            feed: arrays of `count` rows by name; arrays that the engine does not take are ignored.
        Raises:
            QanetError: released before, or a step failed; nothing of the batch is in flight any more.
        """
        with self.gpu.active(f"running a batch of {count}"):
            return self._session_for(count).run(feed, count)

    @contextmanager
    def run_on_device(
        self, feed: dict[str, NDArray], count: int, write_crops: Callable[[GpuContext, DeviceArray], None]
    ) -> Iterator[dict[str, DeviceArray]]:
        """One batch that stays on the GPU: see `Session.run_on_device`."""
        with (
            self.gpu.active(f"running a batch of {count}"),
            self._session_for(count).run_on_device(feed, count, write_crops) as outputs,
        ):
            yield outputs

    @contextmanager
    def profiled(self, report: Callable[[str, float], None]) -> Iterator[str | None]:
        """For the block, every run reports its layers, on plans that are opened meanwhile too.

        Args:
            report: called with a layer's name and its milliseconds, once a layer and run.
        Yields:
            The inspectors' report on the layers of the open plans, as JSON; None without one.
        Raises:
            QanetError: as `run`.
        """
        with self.gpu.active("profiling the engine"):
            self._profiler = layer_profiler(self._library, report)
            try:
                for session in self._sessions():
                    session.set_profiler(self._profiler)
                yield merge_information([session.information() for session in self._sessions()])
            finally:
                self._profiler = None
                for session in self._sessions():
                    session.set_profiler(None)

    @property
    def graph_batches(self) -> tuple[int, ...]:
        """Batch sizes that run as a CUDA graph from here on, in ascending order."""
        return tuple(sorted(batch for session in self._sessions() for batch in session.graph_batches))

    @property
    def profile_batches(self) -> tuple[int, ...]:
        """The largest batch of each profile of the plans that are open, in ascending order."""
        return tuple(sorted({high for session in self._sessions() for _, high in session.batches}))

    @property
    def open_batches(self) -> tuple[int, ...]:
        """The largest batch of each plan that is open, in ascending order."""
        return tuple(sorted(max(high for _, high in session.batches) for session in self._sessions()))

    def release(self) -> None:
        """Wait for the stream, then give everything back."""
        with self.gpu.turn, self.gpu.device.active("closing the engine"), ExitStack() as steps:  # last to first
            steps.callback(self.gpu.close)
            for session in self._sessions():
                steps.callback(session.free)

    def _sessions(self) -> list[Session]:
        return [plan.session for plan in self._plans if plan.session is not None]

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
        session = Session(self._library, self.gpu, data, self._host_code, self._row_shape, self._wanted, name)
        if batches is not None and session.batches != batches:
            session.free()
            raise QanetError(
                f"{plan.file} takes other batches than the manifest says", expected=batches, got=session.batches
            )
        if self._profiler is not None:
            session.set_profiler(self._profiler)
        plan.session = session
        return session
