"""The CUDA memory pool: one owner a buffer, grown and reused, and nothing freed or handed out while in flight."""

import threading

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.cuda.context import open_gpu
from qanet.runtime.cuda.lane import Lane, close_shared_lanes, shared_lane
from qanet.runtime.cuda.memory import Pool
from qanet.runtime.cuda.stream import Stream
from qanet.runtime.cuda.tensor import DeviceArray, Tensor


@pytest.fixture
def streams(machine):
    """A GPU with two streams, and the context current."""
    gpu = open_gpu()
    with gpu.active("testing"):
        pair = [Stream(gpu), Stream(gpu)]
        yield gpu, *pair
        for stream in pair:
            stream.close()
        pair.clear()


def test_a_buffer_grows_to_the_largest_need_and_is_reused_below_it(machine, streams):
    gpu, stream, _ = streams
    with Pool(gpu) as pool:
        addresses = []
        for nbytes in (100, 256, 10, 1000, 0, 1024):
            with pool.device("labels", nbytes, stream) as buffer:
                addresses.append(buffer.address)
                assert buffer.nbytes == nbytes and buffer.capacity_bytes >= nbytes
        assert addresses[0] == addresses[1] == addresses[2] and addresses[3] == addresses[4] == addresses[5]
        assert pool.counts == {"allocated": 2, "freed": 1, "reused": 4} and pool.device_bytes == 1024
    assert pool.counts["freed"] == pool.counts["allocated"] == 2 and pool.device_bytes == 0


def test_a_name_has_one_owner_at_a_time(machine, streams):
    gpu, stream, _ = streams
    with Pool(gpu) as pool:
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
    gpu, first, second = streams
    with Pool(gpu) as pool:
        pool.device("crops", 64, first).release()
        pool.device("crops", 64, first).release()
        assert machine.calls["wait_for_event"] == pool.counts["waited"] == 0
        pool.device("crops", 64, second).release()
        assert machine.calls["wait_for_event"] == pool.counts["waited"] == 1
        assert machine.calls["synchronize"] == 0  # the host never waited


def test_pinned_memory_is_handed_out_when_its_copy_is_done(lane, machine):
    seen = []
    with lane.active("testing"):
        for value in (1, 2):
            with Tensor(lane, "frame", (4,), np.uint8) as tensor:
                tensor.upload(np.full(4, value, np.uint8))
                machine.queue(machine_read(machine, tensor.address, seen, lane.stream.handle))
        lane.stream.synchronize()
    assert seen == [[1] * 4, [2] * 4]  # the second frame did not overtake the first in the buffer they share
    assert lane.pool.counts["waited"] == 1


def machine_read(machine, address, seen, handle):
    from fake_cuda import Work

    return Work(lambda: seen.append(machine.at(address, np.uint8, 4).tolist()), handle, {address})


def test_a_buffer_in_flight_is_freed_after_its_event_when_it_grows(lane, machine):
    with lane.active("testing"):
        with Tensor(lane, "frame", (4,), np.uint8) as tensor:
            tensor.upload(np.zeros(4, np.uint8))
        with Tensor(lane, "frame", (4000,), np.uint8):
            assert machine.calls["synchronize"] >= 1 and machine.calls["free"] == 2
    # the fixture fails the test if a copy was pending at a free


def test_closing_frees_what_is_taken_and_what_is_in_flight(machine):
    lane = Lane(open_gpu())
    with lane.active("testing"):
        tensor = Tensor(lane, "frame", (4,), np.uint8)
        tensor.upload(np.zeros(4, np.uint8))
    lane.close()
    lane.close()
    tensor.release()  # late, and harmless
    assert not machine.memory and machine.calls["free"] == 2
    with pytest.raises(QanetError, match="the lane is closed"), lane.active("testing"):
        pass


@pytest.mark.parametrize("left", [0, 1])
def test_memory_that_runs_out_is_told_and_given_back(lane, machine, left):
    machine.allocations_left = left
    with pytest.raises(QanetError, match="GPU memory ran out while testing"), lane.active("testing"):
        Tensor(lane, "frame", (4,), np.uint8)
    machine.allocations_left = 9
    with lane.active("testing"):
        Tensor(lane, "frame", (4,), np.uint8).release()  # the name was given back too
    assert machine.calls["push"] == machine.calls["pop"]


def test_a_stream_that_failed_is_told_when_the_pool_closes_and_all_is_freed(machine):
    lane = Lane(open_gpu())
    with lane.active("testing"):
        Tensor(lane, "frame", (4,), np.uint8).release()
    machine.sync_error = "cuStreamSynchronize failed: an illegal memory access was encountered"
    with pytest.raises(QanetError, match="illegal memory access"):
        lane.close()
    machine.sync_error = None
    assert not machine.memory


def test_zeroed_memory_is_remembered_until_the_next_owner(lane):
    with lane.active("testing"):
        seen = []
        for leave_zero in (True, False, True):
            with lane.pool.device("sums", 8, lane.stream) as sums:
                seen.append(sums.is_zeroed)
                sums.is_zeroed = leave_zero
        with lane.pool.device("sums", 10_000, lane.stream) as sums:
            seen.append(sums.is_zeroed)  # new memory
    assert seen == [False, True, False, False]


def test_a_tensor_pads_clears_and_brings_back_rows_of_the_callers_own(lane, machine):
    with lane.active("testing"), Tensor(lane, "rows", (4, 2), np.float16) as tensor:
        tensor.upload(np.ones((2, 2)), batch=3)
        tensor.clear(3, 4)
        tensor.download(4)
        lane.stream.synchronize()
        rows = tensor.rows(4)
        assert tensor.first(3) == DeviceArray(tensor.address, (3, 2), np.dtype(np.float16))
        assert tensor.first(3).nbytes == 12
    assert rows.dtype == np.float32 and rows.flags.owndata and rows.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_twenty_threads_share_a_lane(machine):
    failures = []

    def work(value):
        try:
            for _ in range(5):
                lane = shared_lane()
                with lane.active("testing"), Tensor(lane, "frame", (16,), np.uint8) as tensor:
                    tensor.upload(np.full(16, value, np.uint8))
                    tensor.download(16)
                    lane.stream.synchronize()
                    assert (tensor.rows(16) == value).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and machine.calls["retain"] == 1 and machine.calls["stream created"] == 1
    assert machine.calls["mem_alloc"] == machine.calls["pagelocked_empty"] == 1
    close_shared_lanes()
    close_shared_lanes()
    assert not machine.memory
