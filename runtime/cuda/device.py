"""A GPU and its primary context through PyCUDA, streams and events; the driver's errors become QanetErrors.

Call streams and events inside `device.active(...)`, which makes the context current.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qanet.errors import QanetError

_devices: dict[int, "Device"] = {}
_lock = threading.RLock()  # reentrant: the collector may close a forgotten engine in a thread that holds it


class Device:
    """One GPU, worked on through its primary context.

    The primary context is the one that CUDA's runtime API, and so TensorRT and torch, uses by itself. It is retained
    on first use and released when the process ends, not with each engine: PyCUDA's detach releases a primary context
    but leaves it on the calling thread's stack, where other libraries would find it dead.

    Attributes:
        driver: the module pycuda.driver, initialised.
        index: the GPU's, among those that CUDA_VISIBLE_DEVICES leaves.
        target: compute capability, such as "sm_87".
        identity: the GPU's name and target, and the versions of CUDA and of the driver.
    """

    def __init__(self, driver: Any, index: int):
        self.driver, self.index = driver, index
        self._device = driver.Device(index)
        self._context: Any = None
        major, minor = self._device.compute_capability()
        self.target = f"sm_{major}{minor}"
        self.identity = f"{self._device.name()} {self.target}, CUDA {driver.get_driver_version()}, {_driver_version()}"

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Make the context current for this thread, and no longer than the block; blocks may nest.

        Args:
            doing: what the block does, for the error.
        Raises:
            QanetError: any call of the driver in the block failed.
        """
        try:
            context = self._primary_context()
            context.push()
            try:
                yield
            finally:
                self.driver.Context.pop()
        except self.driver.MemoryError as error:
            raise QanetError(
                f"GPU memory ran out while {doing}",
                got=error,
                next_command="build with a smaller --max-batch, or end other processes on the GPU",
            ) from error
        except self.driver.Error as error:
            raise QanetError(f"CUDA failed while {doing}", got=error, next_command="qanet doctor") from error

    def _primary_context(self) -> Any:
        with _lock:
            if self._context is None:
                self._context = self._device.retain_primary_context()
                # Finalizers run at exit in reverse order of creation: after those of GpuContext objects, made later.
                weakref.finalize(self, self._context.detach)
            return self._context


def _driver_version() -> str:
    """The NVIDIA driver by its own file; a Jetson's has none, and is named by its release."""
    for path in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    return "driver unknown"


def open_device(index: int = 0) -> Device:
    """The GPU of an index, one object for the process; nothing is allocated on it yet.

    Raises:
        QanetError: PyCUDA is not installed, no driver, or no such GPU.
    """
    try:
        import pycuda.driver as driver
    except (ImportError, OSError) as error:  # it links the driver: without one the import fails
        raise QanetError(
            "PyCUDA or the NVIDIA driver is missing",
            expected="pycuda and libcuda.so.1",
            got=error,
            next_command="pip install 'qanet-edge[tensorrt]', or device=\"cpu\"",
        ) from error
    try:
        with _lock:
            if index not in _devices:
                driver.init()
                _devices[index] = Device(driver, index)
            return _devices[index]
    except driver.Error as error:
        raise QanetError(f"no GPU {index}", expected="an NVIDIA GPU", got=error, next_command="qanet doctor") from error


_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA has no name for


class Event:
    """A point in a stream, to wait for or to measure from; recorded again it stands for the later point."""

    def __init__(self, device: Device, timing: bool = False):
        flags = device.driver.event_flags
        self.driver_event: Any = device.driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING)

    def synchronize(self) -> None:
        """Block until the GPU is past it."""
        self.driver_event.synchronize()

    def is_done(self) -> bool:
        """Whether the GPU is past it."""
        return bool(self.driver_event.query())

    def milliseconds_since(self, start: "Event") -> float:
        """Time on the GPU's clock from another event to this one, both made with `timing`; waits for this one."""
        self.synchronize()
        return float(self.driver_event.time_since(start.driver_event))


class Timing:
    """Time on the GPU between the two ends of a `Stream.timed` block."""

    def __init__(self, start: Event, stop: Event):
        self._start, self._stop = start, stop

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds on the GPU's clock; waits for the end of the block's work."""
        return self._stop.milliseconds_since(self._start)


class Stream:
    """Work that the GPU does in order.

    It does not wait for the legacy default stream, nor that for it: otherwise another library's copy would break a
    capture, and every context would wait for every other.
    """

    def __init__(self, device: Device):
        self._device = device
        self._stream: Any = device.driver.Stream(_NON_BLOCKING)

    @property
    def driver_stream(self) -> Any:
        """PyCUDA's object, for its copies and launches.

        Raises:
            QanetError: the stream is closed.
        """
        if self._stream is None:
            raise QanetError("the stream is closed", expected="an open stream", next_command="open another")
        return self._stream

    @property
    def handle(self) -> int:
        """CUstream as a number, for TensorRT and cuda-python."""
        return int(self.driver_stream.handle)

    def synchronize(self) -> None:
        """Block until all queued work is done; a closed stream has none."""
        if self._stream is not None:
            self._stream.synchronize()

    def record(self, event: Event) -> None:
        """Queue the event: it is reached after all work queued so far."""
        event.driver_event.record(self.driver_stream)

    def wait_for(self, event: Event) -> None:
        """What is queued from here on starts after the event, of whichever stream; the host does not wait."""
        self.driver_stream.wait_for_event(event.driver_event)

    @contextmanager
    def timed(self) -> Iterator[Timing]:
        """Measure what the block queues; copies and kernels of this stream only, nothing of the host's time."""
        start, stop = Event(self._device, timing=True), Event(self._device, timing=True)
        self.record(start)
        yield Timing(start, stop)
        self.record(stop)

    def close(self) -> None:
        """Wait for the work and destroy the stream; a second call does nothing."""
        try:
            self.synchronize()
        finally:
            self._stream = None
