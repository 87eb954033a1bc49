"""Processor time that the networks take, told apart from everything else in the process while all of it runs.

OpenVINO works in the thread that calls `infer` and in a pool of its own. The calls are timed by the clock of their
thread; the pool's threads are those that opening and running the networks brings into being, and the system counts
their time. OpenCV and the tail have pools too, which `start_other_pools` brings into being before.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

_TASKS = Path("/proc/self/task")
_SIDE_PX = 2048  # of an image that is worth several threads


def start_other_pools() -> None:
    """Let OpenCV and the tail make their threads."""
    import cv2

    from qanet.runtime.kernels import choose_kernels

    image = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    cv2.resize(cv2.warpAffine(image, np.eye(2, 3), (_SIDE_PX, _SIDE_PX)), None, fx=0.5, fy=0.5)
    choose_kernels().pixel_score(
        np.zeros((1, 13, 128, 128), np.float32), [[0, 0, _SIDE_PX, _SIDE_PX]], (_SIDE_PX, _SIDE_PX)
    )


class NetworkClock:
    """Adds up the networks' processor time between entering and leaving; one at a time in a process.

    Args:
        open_networks: called once; opens every network and runs it, and nothing else in it starts threads that stay.
        request: the class whose `infer` runs a network; None: OpenVINO's.
        tasks: a folder of /proc with an entry a thread.

    Attributes:
        cpu_s, calls: of the last time between entering and leaving.
    """

    def __init__(self, open_networks: Callable[[], object], request: Any = None, tasks: Path = _TASKS):
        self._request, self._tasks = request, tasks
        self._lock = threading.Lock()
        self.cpu_s, self.calls = 0.0, 0
        before = self._threads()
        open_networks()
        self._pool = self._threads() - before

    def __enter__(self) -> "NetworkClock":
        if self._request is None:
            import openvino

            self._request = openvino.InferRequest
        self.cpu_s, self.calls = 0.0, 0
        self._original = self._request.infer
        self._request.infer = self._timed(self._original)
        self._begin_s = self._pool_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request.infer = self._original
        self.cpu_s += self._pool_s() - self._begin_s

    def _timed(self, infer: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin_s = time.thread_time()
            try:
                return infer(*args, **kwargs)
            finally:
                with self._lock:
                    self.cpu_s += time.thread_time() - begin_s
                    self.calls += 1

        return timed

    def _threads(self) -> set[str]:
        return {task.name for task in self._tasks.iterdir()} if self._tasks.is_dir() else set()

    def _pool_s(self) -> float:
        """Seconds that the pool's threads have been on a processor; a thread that is gone counts no more."""
        spent_ns = 0
        for name in self._pool:
            try:
                spent_ns += int((self._tasks / name / "schedstat").read_text().split()[0])
            except (OSError, ValueError, IndexError):
                continue
        return spent_ns / 1e9
