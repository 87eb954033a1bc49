"""The progress bar of a build, and Ctrl-C in it, over a builder that only counts steps."""

import os
import signal
from types import SimpleNamespace

import pytest

from qanet.export.engines.progress import watched


class Monitor:
    """What TensorRT's own class of that name is to a subclass."""


def build(config, steps):
    """A builder of one phase: the steps it came to before its monitor asked it to stop."""
    config.progress_monitor.phase_start("Building", None, steps)
    for step in range(steps):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if not config.progress_monitor.step_complete("Building", step):
            return step + 1
    config.progress_monitor.phase_finish("Building")
    return steps


def test_ctrl_c_ends_the_build_at_the_next_step():
    trt, config = SimpleNamespace(IProgressMonitor=Monitor), SimpleNamespace(progress_monitor=None)
    shown = SimpleNamespace(total=0, done=0, set_description=lambda phase: None)
    shown.update = lambda steps: setattr(shown, "done", shown.done + steps)
    before, came_to = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), watched(trt, config, shown):
        came_to.append(build(config, 10))
    assert came_to == [3] and (shown.done, shown.total) == (3, 10)
    assert signal.getsignal(signal.SIGINT) is before and config.progress_monitor is None
