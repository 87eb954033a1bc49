"""One GPU as an engine and the kernels around it share it: a stream, a pool of memory, and the loaded kernels.

`GpuContext` holds the three; `Launch` describes a kernel's launch; `Tensor` is an array on the GPU with pinned memory
on the host beside it.
"""

import atexit
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qanet.errors import QanetError
from qanet.runtime.cuda.device import Device, Stream, open_device
from qanet.runtime.cuda.memory import Pool

_GRID_LIMITS = (2**31 - 1, 65_535, 65_535)  # blocks along x, y, z on every GPU since Kepler
_shared: dict[int, "GpuContext"] = {}
_lock = threading.RLock()
Self = TypeVar("Self", bound="Closing")


class Closing(ABC):
    """A base for `with`: leaving the block closes."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what runs and give everything back; a second call does nothing."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except QanetError:
            if kind is None:  # else the error that ended the block is raised
                raise


@dataclass(frozen=True)
class Launch:
    """One launch; computed without a GPU, so that a test can look at it.

    Attributes:
        module: file of runtime/cuda/kernels, without its suffix.
        function: name in it.
        types: one character per argument, as in `struct`: P address, q int64, i int32, f float32.
        arguments: as many numbers, in the kernel's order.
        grid, block: blocks and threads along x, y, z.
        shared_bytes: dynamic shared memory of a block.

    Raises:
        QanetError: more blocks than a grid may have: too many people for one launch.
    """

    module: str
    function: str
    types: str
    arguments: tuple[int | float, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0

    def __post_init__(self) -> None:
        if any(not 1 <= blocks <= limit for blocks, limit in zip(self.grid, _GRID_LIMITS)):
            raise QanetError(
                f"{self.function} cannot be launched at once",
                expected=f"a grid up to {_GRID_LIMITS}",
                got=self.grid,
                next_command="give fewer people at a time",
            )


class KernelModules:
    """The kernels' functions on one GPU, loaded on first use. Every method wants the context current."""

    def __init__(self, device: Device):
        self._device = device
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, stream: Stream) -> None:
        """Queue a launch.

        Raises:
            QanetError: there is no image of the kernel for this GPU, or the driver refuses it, in the driver's words.
        """
        function = self._function(launch)
        with self._device.active(f"launching {launch.function} on a grid of {launch.grid}"):
            function.prepared_async_call(
                launch.grid, launch.block, stream.driver_stream, *launch.arguments, shared_size=launch.shared_bytes
            )

    def load(self, module: str) -> Any:
        """PyCUDA's module of a kernel file, compiled and loaded on the first call.

        Raises:
            QanetError: there is no image of the kernel for this GPU, or the driver refuses it.
        """
        if module not in self._modules:
            from qanet.runtime.cuda.build import kernel_image  # here, since an engine without kernels needs no compiler

            image = kernel_image(module, self._device.target)
            with self._device.active(f"loading the kernels of {module}"):
                self._modules[module] = self._device.driver.module_from_buffer(image)
        return self._modules[module]

    def _function(self, launch: Launch) -> Any:
        function = self._functions.get(launch.function)
        if function is None:
            module = self.load(launch.module)
            with self._device.active(f"looking up the kernel {launch.function}"):
                function = module.get_function(launch.function)
                function.prepare(launch.types)
            self._functions[launch.function] = function
        return function

    def clear(self) -> None:
        """Unload everything; nothing of it may be running."""
        self._functions.clear()
        self._modules.clear()


class GpuContext(Closing):
    """One stream with a pool of its own; threads take turns in `active`.

    Args:
        gpu: where.
        name: for the error of a use after its end.

    Attributes:
        gpu, stream, pool: shared by all steps of a frame, so that none waits for another.
        turn: the lock that `active` holds.

    Raises:
        QanetError: the GPU cannot be used.
    """

    def __init__(self, device: Device, name: str = "the GPU context"):
        self.device, self.name = device, name
        self.turn = threading.RLock()  # reentrant: an engine's turn holds those of the kernels around it
        with device.active("opening a stream"):
            self.stream = Stream(device)
        self.pool = Pool(device)
        self._kernels = KernelModules(device)
        self.is_closed = False

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """This thread's turn, with the context current; when the block fails, what it queued is waited for.

        Args:
            doing: what the block does, for the error.
        Raises:
            QanetError: a call of the driver failed, or the context is closed.
        """
        with self.turn, self.device.active(doing):
            if self.is_closed:
                raise QanetError(f"{self.name} is closed", expected="an open one", next_command="load it again")
            try:
                yield
            except BaseException:
                self.settle()
                raise

    def settle(self) -> None:
        """Wait for what is queued, in whatever state it ends: the next work must not meet the copies of this."""
        with suppress(self.device.driver.Error):  # the error that led here is raised
            self.stream.synchronize()

    def load(self, *modules: str) -> None:
        """Load kernels before their first launch; inside `active`.

        Raises:
            QanetError: one cannot be had for this GPU.
        """
        for module in modules:
            self._kernels.load(module)

    def launch(self, launch: Launch) -> None:
        """Queue a kernel; inside `active`.

        Raises:
            QanetError: the kernel cannot be loaded or launched.
        """
        self._kernels.launch(launch, self.stream)

    def close(self) -> None:
        """Wait, free the pool, unload the kernels and destroy the stream; a second call does nothing."""
        with self.turn:
            if self.is_closed:
                return
            self.is_closed = True
            with self.device.active("closing a stream"), ExitStack() as steps:  # last to first, whatever another raises
                steps.callback(self.stream.close)
                steps.callback(self._kernels.clear)
                steps.callback(self.pool.close)


def shared_context(index: int = 0) -> GpuContext:
    """The context of calls on host arrays: one per GPU and process, opened on first use, closed when the process ends.

    Raises:
        QanetError: PyCUDA or the GPU is missing.
    """
    with _lock:
        gpu = _shared.get(index)
        if gpu is None or gpu.is_closed:
            gpu = _shared[index] = GpuContext(open_device(index))
            atexit.unregister(close_shared_contexts)
            atexit.register(close_shared_contexts)  # exit runs the last one first: before the context is released
        return gpu


def close_shared_contexts() -> None:
    """Give back what calls on host arrays hold on the GPUs; the next call opens a context again."""
    with _lock:
        while _shared:
            _shared.popitem()[1].close()


@dataclass(frozen=True)
class DeviceArray:
    """The place of a contiguous array on the GPU; its creator owns the memory.

    Attributes:
        address: of its first byte on the GPU.
        shape: as NumPy's.
        dtype: as NumPy's.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> "DeviceArray":
        """The rows start..stop, where they lie."""
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        return DeviceArray(self.address + start * row_bytes, (stop - start, *self.shape[1:]), self.dtype)


class Tensor:
    """One tensor's memory on the GPU and, pinned so that copies are asynchronous, on the host.

    Every method wants the context current.

    Args:
        gpu: the context whose pool and stream are used.
        name: the owner's, unique in the pool while it is held.
        shape: (B, ...) for the largest batch.
        dtype: the elements' type.
        has_host: False where the host never sees the tensor.

    Attributes:
        address: on the GPU.
        host: (B, ...) pinned array, None without. Back in the pool after `release`: copy out of it.
    """

    def __init__(self, gpu: GpuContext, name: str, shape: tuple[int, ...], dtype: DTypeLike, *, has_host: bool = True):
        self._gpu, self._shape, self._dtype = gpu, tuple(shape), np.dtype(dtype)
        nbytes = prod(self._shape) * self._dtype.itemsize
        self._device = gpu.pool.device(name, nbytes, gpu.stream)
        self.address = self._device.address
        self.host: Any = None
        self._pinned: Any = None
        if has_host:
            try:
                self._pinned = gpu.pool.pinned(name, nbytes, gpu.stream)
            except BaseException:
                self._device.release()
                raise
            self.host = self._pinned.host.view(self._dtype).reshape(self._shape)

    def first(self, count: int) -> DeviceArray:
        """The first `count` rows on the GPU."""
        return DeviceArray(self.address, (count, *self._shape[1:]), self._dtype)

    def upload(self, values: NDArray, batch: int | None = None) -> None:
        """Queue a copy of (n, ...) values to the GPU, filled up with zeros to `batch` rows (None: n)."""
        batch = len(values) if batch is None else batch
        self.host[: len(values)] = values
        self.host[len(values) : batch] = 0  # the padding of a static bucket: the same result every time
        self.send(batch)

    def send(self, batch: int) -> None:
        """Queue a copy of the first `batch` rows of `host` to the GPU."""
        if batch:
            driver = self._gpu.device.driver
            driver.memcpy_htod_async(self.address, self.host[:batch], self._gpu.stream.driver_stream)

    def clear(self, start: int, stop: int) -> None:
        """Queue zeros for the rows start..stop on the GPU."""
        row_bytes = prod(self._shape[1:]) * self._dtype.itemsize
        if stop > start:
            driver, where = self._gpu.device.driver, self.address + start * row_bytes
            driver.memset_d8_async(where, 0, (stop - start) * row_bytes, self._gpu.stream.driver_stream)

    def download(self, count: int) -> None:
        """Queue a copy of the first `count` rows to the host."""
        driver = self._gpu.device.driver
        driver.memcpy_dtoh_async(self.host[:count], self.address, self._gpu.stream.driver_stream)

    def rows(self, count: int) -> NDArray:
        """The downloaded rows, the caller's own; float16 as float32. Only after the stream was waited for."""
        rows = self.host[:count]
        return rows.astype(np.float32) if rows.dtype == np.float16 else rows.copy()

    def release(self) -> None:
        """Both sides back to the pool, whatever is still queued; a second call does nothing."""
        self.host = None
        try:
            self._device.release()
        finally:
            if self._pinned is not None:
                self._pinned.release()

    def __enter__(self) -> "Tensor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def fetch(gpu: GpuContext, array: DeviceArray) -> NDArray:
    """An array of the GPU on the host, float16 as float32; inside `gpu.active`, waits for the stream."""
    with gpu.pool.pinned("fetch", array.nbytes, gpu.stream) as pinned:
        if array.nbytes:
            gpu.device.driver.memcpy_dtoh_async(pinned.host, array.address, gpu.stream.driver_stream)
            gpu.stream.synchronize()
        values = pinned.host.view(array.dtype).reshape(array.shape)
        return values.astype(np.float32) if array.dtype == np.float16 else values.copy()
