"""The CUDA memory pool: one owner a buffer, grown and reused, and nothing freed or handed out while in flight."""

import threading

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.cuda.device import Stream, open_device
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext, Tensor, close_shared_contexts, shared_context
from qanet.runtime.cuda.memory import Pool


@pytest.fixture
def streams(machine):
    """A GPU with two streams, and the context current."""
    device = open_device()
    with device.active("testing"):
        pair = [Stream(device), Stream(device)]
        yield device, *pair
        for stream in pair:
            stream.close()
        pair.clear()


def test_a_buffer_grows_to_the_largest_need_and_is_reused_below_it(machine, streams):
    device, stream, _ = streams
    with Pool(device) as pool:
        addresses = []
        for nbytes in (100, 256, 10, 1000, 0, 1024):
            with pool.device("labels", nbytes, stream) as buffer:
                addresses.append(buffer.address)
                assert buffer.nbytes == nbytes and buffer.capacity_bytes >= nbytes
        assert addresses[0] == addresses[1] == addresses[2] and addresses[3] == addresses[4] == addresses[5]
        assert pool.device_bytes >= 1024
    assert pool.device_bytes == 0 and not machine.memory


def test_a_name_has_one_owner_at_a_time(machine, streams):
    device, stream, _ = streams
    with Pool(device) as pool:
        buffer = pool.device("sums", 8, stream)
        pool.pinned("sums", 8, stream).release()  # the host's buffer of that name is another one
        with pytest.raises(QanetError, match="the buffer sums is in use"):
            pool.device("sums", 8, stream)
        buffer.release()
        buffer.release()
        pool.device("sums", 8, stream).release()
    with pytest.raises(QanetError, match="the memory pool is closed"):
        pool.device("sums", 8, stream)
    pool.close()


def test_device_memory_waits_for_its_event_on_another_stream_only(machine, streams):
    device, first, second = streams
    with Pool(device) as pool:
        pool.device("crops", 64, first).release()
        pool.device("crops", 64, first).release()
        assert not machine.calls["wait_for_event"]
        pool.device("crops", 64, second).release()
        assert machine.calls["wait_for_event"] and not machine.calls["synchronize"]  # the host never waited


def test_pinned_memory_is_handed_out_when_its_copy_is_done(gpu, machine):
    seen = []
    with gpu.active("testing"):
        for value in (1, 2):
            with Tensor(gpu, "frame", (4,), np.uint8) as tensor:
                tensor.upload(np.full(4, value, np.uint8))
                machine.queue(machine_read(machine, tensor.address, seen, gpu.stream.handle))
        gpu.stream.synchronize()
    assert seen == [[1] * 4, [2] * 4]  # the second frame did not overtake the first in the buffer they share


def machine_read(machine, address, seen, handle):
    from fake_cuda import Work

    return Work(lambda: seen.append(machine.at(address, np.uint8, 4).tolist()), handle, {address})


def test_a_buffer_in_flight_is_freed_after_its_event_when_it_grows(gpu, machine):
    with gpu.active("testing"):
        with Tensor(gpu, "frame", (4,), np.uint8) as tensor:
            tensor.upload(np.zeros(4, np.uint8))
        before = set(machine.memory)
        with Tensor(gpu, "frame", (4000,), np.uint8):
            assert not before & set(machine.memory)
    # the fixture fails the test if a copy was pending at a free


def test_closing_frees_what_is_taken_and_what_is_in_flight(machine):
    gpu = GpuContext(open_device())
    with gpu.active("testing"):
        tensor = Tensor(gpu, "frame", (4,), np.uint8)
        tensor.upload(np.zeros(4, np.uint8))
    gpu.close()
    gpu.close()
    tensor.release()  # late, and harmless
    assert not machine.memory
    with pytest.raises(QanetError, match="the GPU context is closed"), gpu.active("testing"):
        pass


@pytest.mark.parametrize("left", [0, 1])
def test_memory_that_runs_out_is_told_and_given_back(gpu, machine, left):
    machine.allocations_left = left
    with pytest.raises(QanetError, match="GPU memory ran out while testing"), gpu.active("testing"):
        Tensor(gpu, "frame", (4,), np.uint8)
    machine.allocations_left = 9
    with gpu.active("testing"):
        Tensor(gpu, "frame", (4,), np.uint8).release()  # the name was given back too
    assert machine.calls["push"] == machine.calls["pop"]


def test_a_stream_that_failed_is_told_when_the_pool_closes_and_all_is_freed(machine):
    gpu = GpuContext(open_device())
    with gpu.active("testing"):
        Tensor(gpu, "frame", (4,), np.uint8).release()
    machine.sync_error = "cuStreamSynchronize failed: an illegal memory access was encountered"
    with pytest.raises(QanetError, match="illegal memory access"):
        gpu.close()
    machine.sync_error = None
    assert not machine.memory


def test_zeroed_memory_is_remembered_until_the_next_owner(gpu):
    with gpu.active("testing"):
        seen = []
        for leave_zero in (True, False, True):
            with gpu.pool.device("sums", 8, gpu.stream) as sums:
                seen.append(sums.is_zeroed)
                sums.is_zeroed = leave_zero
        with gpu.pool.device("sums", 10_000, gpu.stream) as sums:
            seen.append(sums.is_zeroed)  # new memory
    assert seen == [False, True, False, False]


def test_a_tensor_pads_clears_and_brings_back_rows_of_the_callers_own(gpu, machine):
    with gpu.active("testing"), Tensor(gpu, "rows", (4, 2), np.float16) as tensor:
        tensor.upload(np.ones((2, 2)), batch=3)
        tensor.clear(3, 4)
        tensor.download(4)
        gpu.stream.synchronize()
        rows = tensor.rows(4)
        assert tensor.first(3) == DeviceArray(tensor.address, (3, 2), np.dtype(np.float16))
        assert tensor.first(3).nbytes == 12
    assert rows.dtype == np.float32 and rows.flags.owndata and rows.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_twenty_threads_share_a_context(machine):
    failures = []

    def work(value):
        try:
            for _ in range(5):
                gpu = shared_context()
                with gpu.active("testing"), Tensor(gpu, "frame", (16,), np.uint8) as tensor:
                    tensor.upload(np.full(16, value, np.uint8))
                    tensor.download(16)
                    gpu.stream.synchronize()
                    assert (tensor.rows(16) == value).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    close_shared_contexts()
    close_shared_contexts()
    assert not machine.memory
