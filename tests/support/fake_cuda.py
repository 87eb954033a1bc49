"""A GPU whose copies and kernels wait for the stream, and PyCUDA over it."""

import threading
import time
import weakref
from collections import Counter
from types import ModuleType

import numpy as np


class Machine:
    """Memory by address, work that is pending, and a count of every call."""

    def __init__(self):
        self.calls, self.pending, self.memory, self.problems = Counter(), [], {}, []
        self.stacks, self.gate = threading.local(), threading.Event()
        self.gate.set()
        self.capability, self.sync_error, self.allocations_left, self.refused = (8, 7), None, 1000, 0
        self.Error = type("Error", (Exception,), {})
        self.MemoryError = type("MemoryError", (self.Error,), {})

    @property
    def stack(self):
        self.stacks.__dict__.setdefault("items", [])
        return self.stacks.items

    def need_context(self, what):
        if not self.stack:
            self.problems.append(f"{what} without a context")
        self.calls[what] += 1

    def watch(self, thing, what):
        """Count an object's creation and, with its last reference, its destruction; both want a context."""
        self.need_context(f"{what} created")
        weakref.finalize(thing, self.need_context, f"{what} destroyed")

    def allocate(self, what, size):
        self.need_context(what)
        if self.allocations_left <= 0:
            self.refused += 1
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        self.allocations_left -= 1
        address = (self.calls["mem_alloc"] + self.calls["pagelocked_empty"]) << 32
        self.memory[address] = np.full(size, 0xCD, np.uint8)
        return address

    def free(self, address):
        self.need_context("free")
        if self.pending:
            self.problems.append("freed with work in flight")
        if self.memory.pop(address, None) is None:
            self.problems.append("freed twice")

    def synchronize(self):
        self.need_context("synchronize")
        time.sleep(0.0005)  # other threads get their chance to interfere
        self.gate.wait()
        pending, self.pending = self.pending, []
        if self.sync_error:
            pending.clear()  # this frame stays in the traceback
            raise self.Error(self.sync_error)
        for work in pending:
            work()

    def driver(self):
        """The module pycuda.driver."""
        machine = self

        class Context:
            def push(self):
                machine.calls["push"] += 1
                machine.stack.append(self)

            @staticmethod
            def pop():
                machine.calls["pop"] += 1
                machine.stack.pop()

            def detach(self):
                machine.calls["detach"] += 1

        class Device:
            def __init__(self, index):
                if index:
                    raise machine.Error("cuDeviceGet failed: invalid device ordinal")

            def compute_capability(self):
                return machine.capability

            def retain_primary_context(self):
                machine.calls["retain"] += 1
                return Context()

        class Stream:
            handle = 77
            synchronize = staticmethod(machine.synchronize)  # as a binding, which leaves no frame in a traceback

            def __init__(self):
                machine.watch(self, "stream")

        class Allocation:
            def __init__(self, what, size, shape=None, kind=None):
                self.address = machine.allocate(what, size)
                if shape is not None:
                    data = machine.memory[self.address]
                    self.__array_interface__ = {**data.view(kind).reshape(shape).__array_interface__}
                    self.keep = data  # a view of freed memory reads garbage, it does not crash the test

            def __int__(self):
                return self.address

            def free(self):
                machine.free(self.address)

        def pagelocked_empty(shape, kind):
            size = int(np.prod(shape)) * kind.itemsize
            return np.asarray(Allocation("pagelocked_empty", size, shape, kind))

        def copy(name, host, work):
            machine.need_context(name)
            owner = host
            while isinstance(owner, np.ndarray):
                owner = owner.base
            if not isinstance(owner, Allocation):
                machine.problems.append(f"{name} of memory that is not pinned")
            machine.pending.append(work)

        def memcpy_htod_async(device, host, stream):
            def work():
                machine.memory[int(device)][: host.nbytes] = np.frombuffer(host.tobytes(), np.uint8)

            copy("htod", host, work)

        def memcpy_dtoh_async(host, device, stream):
            def work():
                host[:] = machine.memory[int(device)][: host.nbytes].view(host.dtype).reshape(host.shape)

            copy("dtoh", host, work)

        module = ModuleType("pycuda.driver")
        module.__dict__.update(
            Error=machine.Error, MemoryError=machine.MemoryError, Context=Context, Device=Device, Stream=Stream,
            init=lambda: None, mem_alloc=lambda size: Allocation("mem_alloc", size), pagelocked_empty=pagelocked_empty,
            memcpy_htod_async=memcpy_htod_async, memcpy_dtoh_async=memcpy_dtoh_async,
        )  # fmt: skip
        return module
