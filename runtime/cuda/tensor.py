"""An array on the GPU, and one with pinned memory on the host beside it, from a lane's pool."""

from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qanet.runtime.cuda.lane import Lane


@dataclass(frozen=True)
class DeviceArray:
    """Where a contiguous array lies on the GPU; whoever made it owns the memory.

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
        lane: whose pool and stream.
        name: the owner's, unique in the pool while it is held.
        shape: (B, ...) for the largest batch.
        dtype: the elements' type.
        has_host: False where the host never sees the tensor.

    Attributes:
        address: on the GPU.
        host: (B, ...) pinned array, None without. Back in the pool after `release`: copy out of it.
    """

    def __init__(self, lane: Lane, name: str, shape: tuple[int, ...], dtype: DTypeLike, *, has_host: bool = True):
        self._lane, self._shape, self._dtype = lane, tuple(shape), np.dtype(dtype)
        nbytes = prod(self._shape) * self._dtype.itemsize
        self._device = lane.pool.device(name, nbytes, lane.stream)
        self.address = self._device.address
        self.host: Any = None
        self._pinned: Any = None
        if has_host:
            try:
                self._pinned = lane.pool.pinned(name, nbytes, lane.stream)
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
            driver = self._lane.gpu.driver
            driver.memcpy_htod_async(self.address, self.host[:batch], self._lane.stream.driver_stream)

    def clear(self, start: int, stop: int) -> None:
        """Queue zeros for the rows start..stop on the GPU."""
        row_bytes = prod(self._shape[1:]) * self._dtype.itemsize
        if stop > start:
            driver, where = self._lane.gpu.driver, self.address + start * row_bytes
            driver.memset_d8_async(where, 0, (stop - start) * row_bytes, self._lane.stream.driver_stream)

    def download(self, count: int) -> None:
        """Queue a copy of the first `count` rows to the host."""
        driver = self._lane.gpu.driver
        driver.memcpy_dtoh_async(self.host[:count], self.address, self._lane.stream.driver_stream)

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


def fetch(lane: Lane, array: DeviceArray) -> NDArray:
    """An array of the GPU on the host, float16 as float32; inside `lane.active`, waits for the stream."""
    with lane.pool.pinned("fetch", array.nbytes, lane.stream) as pinned:
        if array.nbytes:
            lane.gpu.driver.memcpy_dtoh_async(pinned.host, array.address, lane.stream.driver_stream)
            lane.stream.synchronize()
        values = pinned.host.view(array.dtype).reshape(array.shape)
        return values.astype(np.float32) if array.dtype == np.float16 else values.copy()
