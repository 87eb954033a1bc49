"""One pool of GPU buffers and of pinned host buffers: a name and one owner each, grown to the largest need, reused.

A buffer goes back to the pool while the GPU may still be reading it. So an event is recorded at that moment, and:
- a GPU buffer taken again on the same stream needs no wait, since a stream works in order;
- taken on another stream, that stream waits for the event;
- pinned memory, which the host writes without asking the GPU, is handed out when the event has passed;
- nothing is freed before the GPU is past it.
"""

import threading
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import numpy as np

from qanet.errors import QanetError
from qanet.runtime.cuda.device import Device, Event, Stream

_ALIGNMENT = 256  # bytes; sizes are rounded up to it, so that a need that grows by a pixel does not allocate again


class _Slot:
    """A buffer's memory between its owners."""

    def __init__(self, event: Event):
        self.memory: Any = None  # DeviceAllocation, or a pinned uint8 array
        self.capacity_bytes = 0
        self.is_taken = False
        self.is_zeroed = False
        self.stream: Stream | None = None  # where it was last used
        self.event: Event | None = event  # recorded there at its release
        self.is_recorded = False

    def wait(self) -> None:
        """Block until no work touches the memory."""
        if self.is_recorded and self.event is not None:
            self.event.synchronize()
        elif self.stream is not None:
            self.stream.synchronize()


class Buffer:
    """A buffer in the hands of its owner; releasing it, or leaving its `with`, gives it back to the pool.

    Attributes:
        name: the owner's name for it.
        nbytes: as requested; the pool may hold more.
        address: on the GPU; 0 for pinned memory.
        capacity_bytes: what the pool holds.
        host: (nbytes,) uint8 pinned array; None for GPU memory. Freed with the pool: copy out of it.
        is_zeroed: whether the last owner left all of it zero; an owner that does so sets it again.
    """

    def __init__(self, pool: "Pool", slot: _Slot, name: str, nbytes: int, is_pinned: bool):
        self._pool = pool
        self._slot: _Slot | None = slot
        self.name, self.nbytes, self.capacity_bytes = name, nbytes, slot.capacity_bytes
        self.address: int = 0 if is_pinned else int(slot.memory)
        self.host: Any = slot.memory[:nbytes] if is_pinned else None
        self.is_zeroed, slot.is_zeroed = slot.is_zeroed, False

    def release(self) -> None:
        """Back to the pool, whatever is still queued; a second call does nothing."""
        slot, self._slot, self.host = self._slot, None, None
        if slot is not None:
            slot.is_zeroed = self.is_zeroed
            self._pool._take_back(slot)

    def __enter__(self) -> "Buffer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Pool:
    """Buffers by name. Take and release them with the GPU's context current; threads may share a pool."""

    def __init__(self, device: Device):
        self._device = device
        self._slots: dict[tuple[str, bool], _Slot] = {}
        self._lock = threading.RLock()
        self._is_closed = False

    @property
    def device_bytes(self) -> int:
        """What the pool holds on the GPU."""
        return sum(slot.capacity_bytes for (_, is_pinned), slot in self._slots.items() if not is_pinned)

    def device(self, name: str, nbytes: int, stream: Stream) -> Buffer:
        """Take GPU memory of at least `nbytes`, uninitialised, for work on a stream.

        Raises:
            QanetError: the name's buffer is taken already, or the pool is closed.
        """
        return self._take(name, nbytes, stream, is_pinned=False)

    def pinned(self, name: str, nbytes: int, stream: Stream) -> Buffer:
        """Take pinned host memory; as `device`, and ready for the host to write."""
        return self._take(name, nbytes, stream, is_pinned=True)

    def _take(self, name: str, nbytes: int, stream: Stream, *, is_pinned: bool) -> Buffer:
        with self._lock:
            if self._is_closed:
                raise QanetError("the memory pool is closed", expected="an open pool", next_command="open another")
            slot = self._slots.get((name, is_pinned))
            if slot is None:
                slot = self._slots[name, is_pinned] = _Slot(Event(self._device))
            if slot.is_taken:
                raise QanetError(
                    f"the buffer {name} is in use",
                    expected="one owner",
                    got="a second one",
                    next_command="release it first, or take another name",
                )
            if slot.memory is None or slot.capacity_bytes < nbytes:
                slot.wait()
                self._free(slot)
                self._allocate(slot, nbytes, is_pinned)
            elif slot.is_recorded and (is_pinned or slot.stream is not stream):
                self._wait(slot, None if is_pinned else stream)
            slot.is_taken, slot.is_recorded, slot.stream = True, False, stream
            return Buffer(self, slot, name, nbytes, is_pinned)

    def _wait(self, slot: _Slot, stream: Stream | None) -> None:
        """Let a stream, or the host where there is none, wait for the slot's last owner."""
        if stream is None or slot.event is None:
            slot.wait()
        else:
            stream.wait_for(slot.event)

    def _take_back(self, slot: _Slot) -> None:
        with self._lock:
            slot.is_taken = False
            if slot.memory is not None and slot.stream is not None and slot.event is not None:
                with suppress(self._device.driver.Error):  # a failed stream raises later, in `wait`
                    slot.stream.record(slot.event)
                    slot.is_recorded = True

    def _allocate(self, slot: _Slot, nbytes: int, is_pinned: bool) -> None:
        size = max(-(-nbytes // _ALIGNMENT), 1) * _ALIGNMENT
        driver = self._device.driver
        slot.memory = driver.pagelocked_empty((size,), np.dtype(np.uint8)) if is_pinned else driver.mem_alloc(size)
        slot.capacity_bytes, slot.is_zeroed = size, False

    def _free(self, slot: _Slot) -> None:
        """Give memory that nothing uses back to the driver, once."""
        memory, slot.memory, slot.capacity_bytes = slot.memory, None, 0
        if memory is not None:
            owner: Any = memory.base if isinstance(memory, np.ndarray) else memory
            owner.free()

    def close(self) -> None:
        """Wait for every stream that used a buffer and free them all, taken or not; a second call does nothing."""
        with self._lock:
            self._is_closed = True
            slots, self._slots = list(self._slots.values()), {}
            if not slots:
                return
            with self._device.active("giving memory back"), ExitStack() as steps:  # each step whatever another raises
                for slot in slots:
                    steps.callback(self._retire, slot)
                for stream in {id(slot.stream): slot.stream for slot in slots if slot.stream}.values():
                    steps.callback(stream.synchronize)

    def _retire(self, slot: _Slot) -> None:
        try:
            self._free(slot)
        finally:
            slot.event = slot.stream = None  # an event is destroyed in the context that it lives in

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
