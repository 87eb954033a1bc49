"""The CUDA side of an engine, through PyCUDA: a GPU's primary context, and a tensor's memory on both sides."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

_gpus: dict[int, "Gpu"] = {}
_lock = threading.RLock()  # reentrant: the collector may close a forgotten engine in a thread that holds it


class Gpu:
    """One GPU, worked on through its primary context.

    The primary context is the one that CUDA's runtime API, and so TensorRT and torch, uses by itself. It is retained
    on first use and released when the process ends, not with each engine: PyCUDA's detach releases a primary context
    but leaves it on the calling thread's stack, where other libraries would find it dead.

    Attributes:
        driver: the module pycuda.driver, initialised.
        target: compute capability, such as "sm_87".
    """

    def __init__(self, driver: Any, index: int):
        self.driver = driver
        self._device = driver.Device(index)
        self._context: Any = None
        major, minor = self._device.compute_capability()
        self.target = f"sm_{major}{minor}"

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """Make the context current for this thread, and no longer than the block.

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
                f"GPU memory ran out while {doing}", got=error,
                next_command="build with a smaller --max-batch, or end other processes on the GPU",
            ) from error  # fmt: skip
        except self.driver.Error as error:
            raise QanetError(f"CUDA failed while {doing}", got=error, next_command="qanet doctor") from error

    def _primary_context(self) -> Any:
        with _lock:
            if self._context is None:
                self._context = self._device.retain_primary_context()
                # Finalizers run at exit in reverse order of creation: after those of the engines, which come later.
                weakref.finalize(self, self._context.detach)
            return self._context


def open_gpu(index: int = 0) -> Gpu:
    """The GPU of an index, one object for the process; nothing is allocated on it yet.

    Raises:
        QanetError: PyCUDA is not installed, no driver, or no such GPU.
    """
    try:
        import pycuda.driver as driver
    except (ImportError, OSError) as error:  # it links the driver: without one the import fails
        raise QanetError(
            "PyCUDA or the NVIDIA driver is missing", expected="pycuda and libcuda.so.1", got=error,
            next_command="pip install 'qanet-edge[tensorrt]', or device=\"cpu\"",
        ) from error  # fmt: skip
    try:
        with _lock:
            if index not in _gpus:
                driver.init()
                _gpus[index] = Gpu(driver, index)
            return _gpus[index]
    except driver.Error as error:
        raise QanetError(f"no GPU {index}", expected="an NVIDIA GPU", got=error, next_command="qanet doctor") from error


class TensorBuffer:
    """One tensor's memory for the largest batch: pinned on the host, so that copies are asynchronous, and on the GPU.

    Every method wants the context current.

    Attributes:
        host: (B, ...) pinned array; None where the host never sees the tensor. Freed with the buffer: copy out of it.
    """

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: Any, *, pinned: bool):
        self._driver = driver
        kind = np.dtype(dtype)
        self._device: Any = driver.mem_alloc(int(np.prod(shape)) * kind.itemsize)
        self.host: Any = None
        if pinned:
            try:
                self.host = driver.pagelocked_empty(shape, kind)
            except BaseException:
                self.free()
                raise

    @property
    def address(self) -> int:
        """Device address."""
        return int(self._device)

    def upload(self, values: NDArray, batch: int, stream: Any) -> None:
        """Queue a copy of (n, ...) values to the GPU, filled up with zeros to `batch` rows."""
        self.host[: len(values)] = values
        self.host[len(values) : batch] = 0  # the padding of a static bucket: the same result every time
        self._driver.memcpy_htod_async(self._device, self.host[:batch], stream)

    def download(self, count: int, stream: Any) -> None:
        """Queue a copy of the first `count` rows to the host."""
        self._driver.memcpy_dtoh_async(self.host[:count], self._device, stream)

    def rows(self, count: int) -> NDArray:
        """The downloaded rows, the caller's own; float16 as float32. Only after the stream was waited for."""
        rows = self.host[:count]
        return rows.astype(np.float32) if rows.dtype == np.float16 else rows.copy()

    def free(self) -> None:
        """Give both sides back, once; nothing may be in flight."""
        device, self._device = self._device, None
        host, self.host = self.host, None
        try:
            if device is not None:
                device.free()
        finally:
            if host is not None:
                host.base.free()
