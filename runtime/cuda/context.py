"""A GPU and its primary context, through PyCUDA: retained once, made current around each use, and errors told."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

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
                # Finalizers run at exit in reverse order of creation: after those of the lanes, which come later.
                weakref.finalize(self, self._context.detach)
            return self._context


def _driver_version() -> str:
    """The NVIDIA driver by its own file; a Jetson's has none, and is named by its release."""
    for path in ("/proc/driver/nvidia/version", "/etc/nv_tegra_release"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    return "driver unknown"


def open_gpu(index: int = 0) -> Gpu:
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
            if index not in _gpus:
                driver.init()
                _gpus[index] = Gpu(driver, index)
            return _gpus[index]
    except driver.Error as error:
        raise QanetError(f"no GPU {index}", expected="an NVIDIA GPU", got=error, next_command="qanet doctor") from error
