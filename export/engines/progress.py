"""The builder's phases as a progress bar, and Ctrl-C as an end of the build between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def watched(trt: Any, config: Any, bar: Any) -> Iterator[None]:
    """Move a tqdm bar with the builder's steps while the block runs; KeyboardInterrupt at its end after Ctrl-C.

    A signal handler that raises would raise into the library's callbacks, which must not; this one only makes the
    builder's monitor ask for the end, and the builder comes to it at the next step.

    Args:
        trt: the library's module.
        config: the IBuilderConfig that the block builds with.
        bar: tqdm with a total of 0, to which each phase adds its steps when it starts; None shows nothing.
    """
    stopped = threading.Event()
    monitor = _monitor(trt, bar, stopped)
    config.progress_monitor = monitor
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set()) if is_main else None
    try:
        yield
        if stopped.is_set():
            raise KeyboardInterrupt
    finally:
        config.progress_monitor = None
        if is_main:
            signal.signal(signal.SIGINT, before)


def _monitor(trt: Any, bar: Any, stopped: threading.Event) -> Any:
    class ProgressMonitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, list[int]] = {}  # phase -> done, of how many

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = [0, num_steps]
            if bar is not None:
                bar.total += num_steps
                bar.set_description(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._advance(phase_name, step + 1)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                self._advance(phase_name, self._steps[phase_name][1])
                del self._steps[phase_name]

        def _advance(self, phase_name: str, to: int) -> None:
            state = self._steps.get(phase_name)  # a phase of a failed build may step after its end
            if state is not None and to > state[0]:
                if bar is not None:
                    bar.update(min(to, state[1]) - state[0])
                state[0] = min(to, state[1])

    return ProgressMonitor()
