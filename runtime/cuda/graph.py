"""CUDA graphs through cuda-python: launches recorded once and queued again with one call.

PyCUDA has no graphs; its streams and cuda-python's are the same numbers. What is recorded keeps its addresses and
arguments, so buffers are taken from the pool before the recording and held as long as the graph is used.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qanet.errors import QanetError
from qanet.runtime.cuda.gpu_context import GpuContext


def bindings() -> Any:
    """The module cuda.bindings.driver.

    Raises:
        QanetError: cuda-python is not installed, or finds no driver. A CUDA build of PyTorch brings it along to
            machines that have no GPU; it imports there, and its first call fails.
    """
    try:
        from cuda.bindings import driver
    except (ImportError, OSError) as error:
        raise QanetError(
            "cuda-python is missing",
            expected="the module cuda.bindings.driver",
            got=error,
            next_command="pip install 'qanet-edge[tensorrt]'",
        ) from error
    try:
        driver.cuDriverGetVersion()
    except RuntimeError as error:  # cuda.pathfinder's DynamicLibNotFoundError among them
        raise QanetError(
            "cuda-python finds no driver", expected="libcuda of an NVIDIA driver", got=error, next_command="nvidia-smi"
        ) from error
    return driver


def checked(driver: Any, doing: str, answer: tuple) -> Any:
    """The result of a call of cuda-python without its status: None, a value, or a tuple of values.

    Raises:
        QanetError: the status is not success, in the driver's words.
    """
    status, *values = answer
    if int(status) != 0:
        _, name = driver.cuGetErrorName(status)
        _, text = driver.cuGetErrorString(status)
        words = " ".join(part.decode() if isinstance(part, bytes) else str(part) for part in (name, text))
        raise QanetError(f"CUDA failed while {doing}", got=words, next_command="qanet doctor")
    if len(values) <= 1:
        return values[0] if values else None
    return tuple(values)


class Graph:
    """What a `capture` block queued.

    Attributes:
        is_captured: whether it can be launched again; after a fallback it ran as plain launches, once.
        reason: why not, empty where it was captured.
    """

    def __init__(self, gpu: GpuContext):
        self._gpu = gpu
        self._driver: Any = None
        self._executable: Any = None
        self.reason = ""

    @property
    def is_captured(self) -> bool:
        """Whether `launch` can be called."""
        return self._executable is not None

    def launch(self) -> None:
        """Queue the recorded work once more; inside `gpu.active`.

        Raises:
            QanetError: nothing was captured, or the driver refuses.
        """
        if self._executable is None:
            raise QanetError("no graph was captured", expected="a captured graph", got=self.reason or "a closed graph")
        stream = self._driver.CUstream(self._gpu.stream.handle)
        checked(self._driver, "launching a graph", self._driver.cuGraphLaunch(self._executable, stream))

    def instantiate(self, driver: Any, graph: Any) -> None:
        """Make a recorded graph launchable; the recording itself is given back."""
        try:
            made = checked(driver, "instantiating a graph", driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        self._driver, self._executable = driver, made

    def close(self) -> None:
        """Give the graph back when the stream is done with it; a second call does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            with self._gpu.turn, self._gpu.device.active("giving a graph back"):
                try:
                    self._gpu.stream.synchronize()
                finally:
                    status = self._driver.cuGraphExecDestroy(executable)
                checked(self._driver, "giving a graph back", status)


@contextmanager
def capture(gpu: GpuContext) -> Iterator[Graph]:
    """Record what the block queues on the stream, then queue it: either way the work is queued exactly once.

    The block must not wait for the stream, allocate, or give buffers back to the pool.

    Args:
        gpu: inside `gpu.active`.
    Yields:
        The graph, launchable after the block where `is_captured` is true. Without cuda-python the block's launches
        run as they come, with a RuntimeWarning.
    Raises:
        QanetError: the driver refused the recording.
    """
    graph = Graph(gpu)
    try:
        driver = bindings()
    except QanetError as error:
        graph.reason = str(error)
        warnings.warn(f"no CUDA graph, plain launches instead: {error}", RuntimeWarning, stacklevel=3)
        yield graph
        return
    stream = driver.CUstream(gpu.stream.handle)
    # Thread-local: an allocation in another thread does not break the recording.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked(driver, "beginning a capture", driver.cuStreamBeginCapture(stream, mode))
    try:
        yield graph
    except BaseException:
        status, *recorded = driver.cuStreamEndCapture(stream)  # else the stream stays in capture for good
        if int(status) == 0:
            driver.cuGraphDestroy(recorded[0])
        raise
    graph.instantiate(driver, checked(driver, "ending a capture", driver.cuStreamEndCapture(stream)))
    try:
        graph.launch()
    except BaseException:
        graph.close()
        raise


class Replay:
    """Work of fixed shape, captured on its second run and launched as a graph from then on.

    The first run is plain: libraries allocate and choose there, which a capture would not allow. Where a capture is
    not available or the driver refuses it, every run stays plain, and a RuntimeWarning says so once.

    Args:
        gpu: on whose stream the work queues.
        work: queues it, with the same addresses and arguments every time.

    Attributes:
        reason: why runs stay plain; empty where they do not.
    """

    def __init__(self, gpu: GpuContext, work: Callable[[], None]):
        self._gpu, self._work = gpu, work
        self._graph: Graph | None = None
        self._is_warm = False
        self.reason = ""

    @property
    def is_captured(self) -> bool:
        """Whether the next run launches a graph."""
        return self._graph is not None

    def run(self) -> None:
        """Queue the work once; inside `gpu.active`."""
        if self._graph is not None:
            self._graph.launch()
        elif self.reason or not self._is_warm:
            self._work()
            self._is_warm = True
        else:
            self._record()

    def _record(self) -> None:
        try:
            with capture(self._gpu) as graph:
                self._work()
        except (QanetError, self._gpu.device.driver.Error) as error:  # nothing of it was queued
            self.reason = str(error)
            warnings.warn(f"no CUDA graph, plain launches instead: {error}", RuntimeWarning, stacklevel=3)
            self._work()
            return
        if graph.is_captured:
            self._graph = graph
        else:
            self.reason = graph.reason

    def close(self) -> None:
        """Give the graph back; the next run is plain again, the one after it captures."""
        graph, self._graph, self._is_warm = self._graph, None, False
        if graph is not None:
            graph.close()
