"""A GPU whose copies and kernels wait for the stream, and PyCUDA over it."""

import struct
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np

FIRST_STREAM = 77
_PAGE = 1 << 32  # every allocation has an address space of its own, so that an offset leads back to it


@dataclass
class Work:
    """Something queued on a stream; `bases` are the allocations it touches."""

    run: object
    stream: int
    bases: set

    def __call__(self):
        if self.run:
            self.run()


@dataclass
class LaunchRecord:
    """What a launch was called with."""

    name: str
    grid: tuple
    block: tuple
    shared: int
    types: str
    arguments: tuple = field(repr=False)


class Machine:
    """Memory by address, work that is pending, and a count of every call."""

    def __init__(self):
        self.calls, self.pending, self.memory, self.problems = Counter(), [], {}, []
        self.stacks, self.gate, self.lock = threading.local(), threading.Event(), threading.RLock()
        self.gate.set()
        self.capability, self.sync_error, self.allocations_left, self.refused = (8, 7), None, 1000, 0
        self.Error = type("Error", (Exception,), {})
        self.MemoryError = type("MemoryError", (self.Error,), {})
        self.live_streams, self.captures = set(), {}
        self.launches, self.kernels, self.launch_error, self.clock_ms = [], {}, None, 0.0

    @property
    def stack(self):
        self.stacks.__dict__.setdefault("items", [])
        return self.stacks.items

    def need_context(self, what):
        with self.lock:
            if not self.stack:
                self.problems.append(f"{what} without a context")
            self.calls[what] += 1

    def watch(self, thing, what):
        """Count an object's creation and, with its last reference, its destruction; both want a context."""
        self.need_context(f"{what} created")
        weakref.finalize(thing, self.need_context, f"{what} destroyed")

    def allocate(self, what, size):
        self.need_context(what)
        with self.lock:
            if self.allocations_left <= 0:
                self.refused += 1
                raise self.MemoryError("cuMemAlloc failed: out of memory")
            self.allocations_left -= 1
            address = (self.calls["mem_alloc"] + self.calls["pagelocked_empty"]) * _PAGE
            self.memory[address] = np.full(size, 0xCD, np.uint8)
            return address

    def free(self, address):
        self.need_context("free")
        with self.lock:
            if any(address in work.bases for work in self.pending):
                self.problems.append("freed with work in flight")
            if self.memory.pop(address, None) is None:
                self.problems.append("freed twice")

    def at(self, address, dtype, shape):
        """The array at an address on the GPU, to read and write."""
        base = address // _PAGE * _PAGE
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[base][address - base :][:size].view(dtype).reshape(shape)

    def queue(self, work):
        """Add to the stream's work, or to what is being captured of it."""
        with self.lock:
            self.captures.get(work.stream, self.pending).append(work)

    def drain(self, handle, until=None):
        """Run what is queued on one stream, up to and with a piece of work."""
        with self.lock:
            for work in [work for work in self.pending if work.stream == handle]:
                if work in self.pending:  # what ran meanwhile may have drained it
                    self.pending.remove(work)
                    work()
                if work is until:
                    return

    def synchronize(self, handle, until=None):
        self.need_context("synchronize")
        time.sleep(0.0005)  # other threads get their chance to interfere
        self.gate.wait()
        if handle in self.captures:
            raise self.Error("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        if self.sync_error:
            self.pending.clear()  # this frame stays in the traceback
            raise self.Error(self.sync_error)
        self.drain(handle, until)

    def launch(self, record, handle, limit):
        """Queue `kernels[name](machine, *arguments)`; refuse what a driver would."""
        self.need_context("launch")
        size = np.prod(record.block)
        if self.launch_error:
            raise self.Error(self.launch_error)
        if size > 1024 or min(record.grid) < 1 or max(record.grid[1:]) > 65535 or record.shared > limit:
            raise self.Error("cuLaunchKernel failed: invalid argument")
        pointers = [value for kind, value in zip(record.types, record.arguments) if kind == "P" and value]
        for address in pointers:
            if address // _PAGE * _PAGE not in self.memory:
                self.problems.append(f"{record.name} launched on freed memory")
        kernel = self.kernels.get(record.name, lambda *arguments: None)
        self.launches.append(record)

        def run():
            self.grid = record.grid  # what a kernel knows of its launch
            kernel(self, *record.arguments)

        self.queue(Work(run, handle, {address // _PAGE * _PAGE for address in pointers}))

    def driver(self):
        """The module pycuda.driver."""
        module = ModuleType("pycuda.driver")
        names = {
            "Error": self.Error,
            "MemoryError": self.MemoryError,
            "init": lambda: None,
            "get_driver_version": lambda: 12040,
        }
        flags = SimpleNamespace(DEFAULT=0, DISABLE_TIMING=2)
        module.__dict__.update(names | _device(self) | _streams(self) | _memory(self) | _modules(self))
        module.event_flags = flags
        return module


def _device(machine):
    class Context:
        def push(self):
            with machine.lock:
                machine.calls["push"] += 1
            machine.stack.append(self)

        @staticmethod
        def pop():
            with machine.lock:
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

        def name(self):
            return "Made-up GPU"

        def retain_primary_context(self):
            machine.calls["retain"] += 1
            return Context()

    return {"Context": Context, "Device": Device}


def _streams(machine):
    class Stream:
        def __init__(self, flags=0):
            with machine.lock:
                free = set(range(FIRST_STREAM, FIRST_STREAM + 100)) - machine.live_streams
                self.handle = min(free)
                machine.live_streams.add(self.handle)
            machine.watch(self, "stream")
            weakref.finalize(self, machine.live_streams.discard, self.handle)

        @property
        def synchronize(self):  # as a binding, which leaves no frame with the stream in a traceback
            handle = self.handle
            return lambda: machine.synchronize(handle)

        def wait_for_event(self, event):
            machine.need_context("wait_for_event")
            source, mark = event.source, event.mark
            machine.queue(Work(lambda: mark in machine.pending and machine.drain(source, mark), self.handle, set()))

    class Event:
        def __init__(self, flags=0):
            self.flags, self.mark, self.source, self.time_ms = flags, None, None, None
            machine.watch(self, "event")

        def record(self, stream=None):
            machine.need_context("record")
            times = self.__dict__

            def reached():
                machine.clock_ms += 1
                times["time_ms"] = machine.clock_ms

            self.source, self.mark = stream.handle, Work(reached, stream.handle, set())
            machine.queue(self.mark)

        def synchronize(self):
            if self.mark in machine.pending:
                machine.synchronize(self.source, self.mark)

        def query(self):
            return self.mark not in machine.pending

        def time_since(self, start):
            assert not self.flags and not start.flags, "timing is disabled"
            return self.time_ms - start.time_ms

    return {"Stream": Stream, "Event": Event}


def _memory(machine):
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

    def copy(name, host, device, stream, work):
        machine.need_context(name)
        owner, device = host, int(device)
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if not isinstance(owner, Allocation):
            machine.problems.append(f"{name} of memory that is not pinned")
        if not host.flags.c_contiguous:
            machine.problems.append(f"{name} of memory that is not contiguous")
        machine.queue(Work(work, stream.handle, {owner.address, device // _PAGE * _PAGE}))

    def memcpy_htod_async(device, host, stream):
        def work():
            machine.at(int(device), np.uint8, host.nbytes)[:] = np.frombuffer(host.tobytes(), np.uint8)

        copy("htod", host, device, stream, work)

    def memcpy_dtoh_async(host, device, stream):
        def work():
            host[:] = machine.at(int(device), host.dtype, host.shape)

        copy("dtoh", host, device, stream, work)

    def memcpy_dtod_async(target, source, size, stream):
        machine.need_context("dtod")
        bases = {target // _PAGE * _PAGE, source // _PAGE * _PAGE}

        def work():
            machine.at(target, np.uint8, size)[:] = machine.at(source, np.uint8, size)

        machine.queue(Work(work, stream.handle, bases))

    def memset_d8_async(device, value, size, stream):
        machine.need_context("memset")
        base = {device // _PAGE * _PAGE}
        machine.queue(Work(lambda: machine.at(device, np.uint8, size).fill(value), stream.handle, base))

    return {
        "mem_alloc": lambda size: Allocation("mem_alloc", size),
        "pagelocked_empty": pagelocked_empty,
        "memcpy_htod_async": memcpy_htod_async,
        "memcpy_dtoh_async": memcpy_dtoh_async,
        "memset_d8_async": memset_d8_async,
        "memcpy_dtod_async": memcpy_dtod_async,
    }


def _modules(machine):
    class Function:
        def __init__(self, name):
            self.name, self.types = name, None

        def prepare(self, types):
            self.types = types
            return self

        def prepared_async_call(self, grid, block, stream, *arguments, shared_size=0):
            handle = stream.handle
            del stream  # the traceback of a refused launch must not keep it alive
            struct.pack(self.types, *arguments)
            assert isinstance(block, tuple) and len(grid) == len(block) == 3
            record = LaunchRecord(self.name, grid, block, shared_size, self.types, arguments)
            machine.launch(record, handle, limit=48 * 1024)

    class Module:
        def __init__(self, image):
            self.image = image
            machine.watch(self, "module")

        def get_function(self, name):
            if name.encode() not in self.image:
                raise machine.Error(f"cuModuleGetFunction failed: named symbol not found: {name}")
            return Function(name)

    return {"module_from_buffer": Module}


def graph_bindings(machine):
    """The module cuda.bindings.driver, as far as graphs need it; a fault named in `machine.graph_fault` fails."""
    machine.graph_fault = None
    module = ModuleType("cuda.bindings.driver")

    def answer(call, *values):
        machine.need_context(call)
        return (901, *[None for _ in values]) if machine.graph_fault == call else (0, *values)

    def begin(stream, mode):
        assert mode == "thread local"
        made = answer("cuStreamBeginCapture")
        if made[0] == 0:
            assert stream not in machine.captures
            machine.captures[stream] = []
        return made

    def launch(graph, stream):
        made = answer("cuGraphLaunch")
        if made[0] == 0:
            for work in graph:
                machine.queue(Work(work.run, stream, work.bases))
        return made

    module.__dict__.update(
        cuDriverGetVersion=lambda: (0, 13000),
        CUstream=int,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local"),
        cuStreamBeginCapture=begin,
        cuGraphLaunch=launch,
        cuStreamEndCapture=lambda stream: answer("cuStreamEndCapture", machine.captures.pop(stream)),
        cuGraphInstantiate=lambda graph, flags: answer("cuGraphInstantiate", list(graph)),
        cuGraphDestroy=lambda graph: answer("cuGraphDestroy"),
        cuGraphExecDestroy=lambda graph: answer("cuGraphExecDestroy"),
        cuGetErrorName=lambda status: (0, b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
        cuGetErrorString=lambda status: (0, b"operation failed due to a previous error during capture"),
    )
    return module
