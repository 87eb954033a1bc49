"""A lane of one GPU: the stream, the memory and the kernels that an engine and the steps around it share."""

import atexit
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from qanet.errors import QanetError
from qanet.runtime.cuda.closing import Closing
from qanet.runtime.cuda.context import Gpu, open_gpu
from qanet.runtime.cuda.kernel import Kernels, Launch
from qanet.runtime.cuda.memory import Pool
from qanet.runtime.cuda.stream import Stream

_shared: dict[int, "Lane"] = {}
_lock = threading.RLock()


class Lane(Closing):
    """One stream with a pool of its own; threads take turns in `active`.

    Args:
        gpu: where.
        name: what it is for, in the error of whoever comes after its end.

    Attributes:
        gpu, stream, pool: shared by all that works here, so nothing has to wait between two steps of a frame.
        turn: the lock that `active` holds.

    Raises:
        QanetError: the GPU cannot be used.
    """

    def __init__(self, gpu: Gpu, name: str = "the lane"):
        self.gpu, self.name = gpu, name
        self.turn = threading.RLock()  # reentrant: an engine's turn holds those of the kernels around it
        with gpu.active("opening a stream"):
            self.stream = Stream(gpu)
        self.pool = Pool(gpu)
        self._kernels = Kernels(gpu)
        self.is_closed = False

    @contextmanager
    def active(self, doing: str) -> Iterator[None]:
        """This thread's turn, with the context current; when the block fails, what it queued is waited for.

        Args:
            doing: what the block does, for the error.
        Raises:
            QanetError: a call of the driver failed, or the lane is closed.
        """
        with self.turn, self.gpu.active(doing):
            if self.is_closed:
                raise QanetError(f"{self.name} is closed", expected="an open one", next_command="load it again")
            try:
                yield
            except BaseException:
                self.settle()
                raise

    def settle(self) -> None:
        """Wait for what is queued, in whatever state it ends: the next work must not meet the copies of this."""
        with suppress(self.gpu.driver.Error):  # the error that brought us here is the one to tell
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
            with self.gpu.active("closing a stream"), ExitStack() as steps:  # last to first, whatever another raises
                steps.callback(self.stream.close)
                steps.callback(self._kernels.clear)
                steps.callback(self.pool.close)


def shared_lane(index: int = 0) -> Lane:
    """The lane of calls on host arrays: one a GPU and process, opened on first use and closed when the process ends.

    Raises:
        QanetError: PyCUDA or the GPU is missing.
    """
    with _lock:
        lane = _shared.get(index)
        if lane is None or lane.is_closed:
            lane = _shared[index] = Lane(open_gpu(index))
            atexit.unregister(close_shared_lanes)
            atexit.register(close_shared_lanes)  # exit runs the last one first: before the context is released
        return lane


def close_shared_lanes() -> None:
    """Give back what calls on host arrays hold on the GPUs; the next call opens a lane again."""
    with _lock:
        while _shared:
            _shared.popitem()[1].close()
