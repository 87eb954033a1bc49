"""CUDA context, streams, events and graphs: pushes and pops in pairs, errors told, graphs made once and replayed."""

import sys
import warnings

import pytest
from fake_cuda import Work

from qanet.errors import QanetError
from qanet.runtime.cuda.device import Event, Stream, open_device
from qanet.runtime.cuda.graph import Replay, bindings, capture


def test_the_context_is_retained_once_and_popped_whatever_happens(machine):
    device = open_device()
    assert open_device() is device
    with device.active("one"), device.active("two"):
        assert len(machine.stack) == 2
    for error, words in (
        (machine.Error("cuFoo failed: unknown"), "CUDA failed while testing .*cuFoo failed: unknown"),
        (machine.MemoryError("cuBar"), "GPU memory ran out while testing"),
        (ValueError("x"), "x"),
    ):
        with pytest.raises((QanetError, ValueError), match=words) as caught, device.active("testing"):
            raise error
        assert not machine.stack
        if isinstance(caught.value, QanetError):
            assert caught.value.got is error and caught.value.next_command
    assert machine.calls["push"] == machine.calls["pop"]


def test_an_event_orders_two_streams_and_measures_one(machine):
    device, done = open_device(), []
    with device.active("testing"):
        first, second = Stream(device), Stream(device)
        event = Event(device)
        machine.queue(Work(lambda: done.append("first"), first.handle, set()))
        first.record(event)
        second.wait_for(event)
        machine.queue(Work(lambda: done.append("second"), second.handle, set()))
        assert not event.is_done()
        second.synchronize()
        assert done == ["first", "second"] and event.is_done()
        with first.timed() as timing:
            machine.queue(Work(lambda: setattr(machine, "clock_ms", machine.clock_ms + 2.5), first.handle, set()))
        assert timing.elapsed_ms == 3.5  # and a millisecond from one event to the next
        for stream in (first, second):
            stream.close()
            stream.close()
        with pytest.raises(QanetError, match="the stream is closed"):
            first.record(event)
        del event, timing, stream, first, second


def queued(machine, gpu, log):
    """Work that leaves a line in a log when it runs."""
    return lambda: machine.queue(Work(lambda: log.append("ran"), gpu.stream.handle, set()))


def test_a_recorded_graph_runs_its_work_every_time(graphs, gpu):
    log = []
    with gpu.active("testing"):
        replay = Replay(gpu, queued(graphs, gpu, log))
        for _ in range(10):
            replay.run()
        gpu.stream.synchronize()
        assert log == ["ran"] * 10 and replay.reason == ""
        assert replay.is_captured
    replay.close()
    replay.close()
    assert not replay.is_captured and not graphs.captures


def test_a_capture_that_fails_inside_leaves_the_stream_usable(graphs, gpu):
    log = []
    with gpu.active("testing"):
        with pytest.raises(ZeroDivisionError), capture(gpu):
            queued(graphs, gpu, log)()
            raise ZeroDivisionError
        gpu.stream.synchronize()
    assert log == [] and not graphs.captures


@pytest.mark.parametrize("fault", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"])
def test_a_refused_capture_is_told_in_the_drivers_words_and_the_work_runs_plainly(graphs, gpu, fault):
    log = []
    graphs.graph_fault = fault
    with gpu.active("testing"):
        work = queued(graphs, gpu, log)
        words = "CUDA failed while .*CUDA_ERROR_STREAM_CAPTURE_INVALIDATED operation"
        with pytest.raises(QanetError, match=words), capture(gpu):
            work()
        replay = Replay(gpu, work)
        replay.run()
        with pytest.warns(RuntimeWarning, match="no CUDA graph, plain launches instead: CUDA failed while"):
            replay.run()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            replay.run()  # told once
        gpu.stream.synchronize()
    assert log == ["ran"] * 3 and "CAPTURE_INVALIDATED" in replay.reason and not graphs.captures


def test_waiting_for_the_stream_while_it_is_captured_falls_back(graphs, gpu):
    with gpu.active("testing"):
        replay = Replay(gpu, gpu.stream.synchronize)
        replay.run()
        with pytest.warns(RuntimeWarning, match="stream is capturing"):
            replay.run()
    assert not graphs.captures


def test_cuda_python_without_a_driver_counts_as_missing(graphs, gpu, monkeypatch):
    def fails():
        raise RuntimeError('"cuda" is an NVIDIA driver library')

    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuDriverGetVersion", fails)
    with pytest.raises(QanetError, match="cuda-python finds no driver .*NVIDIA driver library"):
        bindings()
    with gpu.active("testing"), pytest.warns(RuntimeWarning, match="cuda-python finds no driver"):
        with capture(gpu) as graph:
            pass
        assert not graph.is_captured


def test_without_cuda_python_launches_stay_plain_and_say_so(machine, gpu):
    log = []
    with pytest.raises(QanetError, match=r"cuda-python is missing .*pip install 'qanet-edge\[tensorrt\]'"):
        bindings()
    with gpu.active("testing"):
        with (
            pytest.warns(RuntimeWarning, match="plain launches instead: cuda-python is missing"),
            capture(gpu) as graph,
        ):
            queued(machine, gpu, log)()
        assert not graph.is_captured
        with pytest.raises(QanetError, match="no graph was captured"):
            graph.launch()
        replay = Replay(gpu, queued(machine, gpu, log))
        with pytest.warns(RuntimeWarning):
            for _ in range(3):
                replay.run()
        gpu.stream.synchronize()
    assert log == ["ran"] * 4 and "cuda-python" in replay.reason
