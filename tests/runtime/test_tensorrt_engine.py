"""The TensorRT engine on a machine made up of two modules that count, check and defer what a GPU would do."""

import gc
import importlib.util
import json
import sys
import threading
import time
import weakref
from collections import Counter
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from qanet import bundle as bundles
from qanet.errors import QanetError
from qanet.runtime.engines import cuda_buffers, select
from qanet.runtime.engines.tensorrt import engine_from_bundle

HEIGHT, WIDTH, PARTS = 8, 6, 3
KERNEL_TAIL, ALL_OUTPUTS = ("logits", "iou_scores"), ("logits", "iou_scores", "quality")
STATIC, DYNAMIC = [(1, 1), (2, 2), (4, 4), (8, 8)], [(1, 8)]
SHAPES = {"crops": (HEIGHT, WIDTH, 3), "box_scores": (), "logits": (PARTS, 2, 2), "iou_scores": (), "quality": ()}


def network(crops, box_scores):
    """What the made-up engine computes: each row's outputs tell which row they came from."""
    iou = crops[:, 0, 0, 0].astype(np.float32) / 255
    logits = crops.mean((1, 2, 3), dtype=np.float32)[:, None, None, None] + np.arange(PARTS)[None, :, None, None]
    return {"logits": np.broadcast_to(logits, (len(crops), PARTS, 2, 2)), "iou_scores": iou,
            "quality": None if box_scores is None else iou * box_scores}  # fmt: skip


# ---- A GPU whose copies and kernels wait for the stream, and PyCUDA over it.


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


# ---- TensorRT over it; a plan is JSON: profiles, inputs, outputs, half (names in float16), fail (calls that fail).


class FakeContext:
    def __init__(self, engine):
        self.engine, self.profile, self.shapes, self.addresses = engine, None, {}, {}
        engine.machine.watch(self, "context")

    def set_optimization_profile_async(self, index, handle):
        assert handle == 77
        self.profile = self.engine.spec["profiles"][index]
        self.engine.machine.pending.append(lambda: None)
        return self.engine.succeeds("set_optimization_profile_async")

    def set_input_shape(self, name, shape):
        low, high = self.profile
        if not (low <= shape[0] <= high and tuple(shape[1:]) == SHAPES[name]):
            return self.engine.refuse(f"{name}: shape {shape} is out of the profile {self.profile}")
        self.shapes[name] = tuple(shape)
        return self.engine.succeeds("set_input_shape")

    def get_tensor_shape(self, name):
        return (self.shapes["crops"][0], *SHAPES[name])

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return self.engine.succeeds("set_tensor_address")

    def execute_async_v3(self, handle):
        engine = self.engine
        engine.machine.need_context("execute")
        assert handle == 77 and set(self.addresses) == set(engine.names)
        engine.machine.pending.append(self.compute)
        return engine.succeeds("execute_async_v3")

    def array(self, name):
        shape, kind = self.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return self.engine.machine.memory[self.addresses[name]][:size].view(kind).reshape(shape)

    def compute(self):
        inputs = {name: self.array(name) for name in self.engine.spec["inputs"]}
        found = network(inputs["crops"], inputs.get("box_scores"))
        for name in self.engine.spec["outputs"]:
            self.array(name)[:] = found[name]


class FakeEngine:
    def __init__(self, machine, spec, logger):
        self.machine, self.spec, self.logger = machine, spec, logger
        self.names = [*spec["inputs"], *spec["outputs"]]
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(spec["profiles"])
        self.get_tensor_name = self.names.__getitem__
        machine.watch(self, "engine")

    def refuse(self, message):
        self.logger.log(1, message)
        return False

    def succeeds(self, call):
        return self.refuse(f"Error Code 1: {call} went wrong") if call in self.spec.get("fail", ()) else True

    def get_tensor_mode(self, name):
        return "input" if name in self.spec["inputs"] else "output"

    def get_tensor_dtype(self, name):
        return {"crops": "uint8"}.get(name, "float16" if name in self.spec.get("half", ()) else "float32")

    def get_tensor_shape(self, name):
        return (-1, *SHAPES[name])

    def get_tensor_profile_shape(self, name, index):
        low, high = self.spec["profiles"][index]
        return [(size, *SHAPES[name]) for size in (low, high, high)]

    def create_execution_context(self, strategy):
        assert strategy == "on profile change"
        return FakeContext(self) if self.succeeds("create_execution_context") else None


def fake_tensorrt(machine, name, version):
    """The module tensorrt or tensorrt_rtx."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            self.logger = logger
            machine.watch(self, "runtime")

        def deserialize_cuda_engine(self, plan):
            machine.need_context("deserialize")
            machine.host_code = self.engine_host_code_allowed
            if plan == b"not a plan":
                self.logger.log(1, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.")
                return None
            return FakeEngine(machine, json.loads(plan), self.logger)

    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(
        __version__=version, Runtime=Runtime, TensorIOMode=SimpleNamespace(INPUT="input"),
        ILogger=type("ILogger", (), {}), nptype=lambda kind: np.dtype(kind).type,
        ExecutionContextAllocationStrategy=SimpleNamespace(ON_PROFILE_CHANGE="on profile change"),
    )  # fmt: skip
    return module


@pytest.fixture
def machine(monkeypatch):
    """An sm_87 with TensorRT 10.3.0; afterwards the books must balance."""
    made = Machine()
    pycuda = ModuleType("pycuda")
    pycuda.driver = made.driver()
    modules = {"pycuda": pycuda, "pycuda.driver": pycuda.driver, "tensorrt_rtx": None}
    for name, module in (modules | {"tensorrt": fake_tensorrt(made, "tensorrt", "10.3.0")}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda_buffers, "_gpus", {})
    yield made
    assert made.problems == []
    assert made.calls["push"] == made.calls["pop"]
    assert made.calls["mem_alloc"] + made.calls["pagelocked_empty"] - made.refused == made.calls["free"]
    assert not made.memory and not made.pending
    for what in ("runtime", "engine", "context", "stream"):
        assert made.calls[f"{what} created"] == made.calls[f"{what} destroyed"]


def make_bundle(folder, profiles=STATIC, outputs=KERNEL_TAIL, plan=None, half=(), fail=(), **entry):
    """A bundle with one engine, FP16 for sm_87 unless `entry` says otherwise."""
    inputs = ["crops", "box_scores"] if "quality" in outputs else ["crops"]
    spec = {"profiles": profiles, "inputs": inputs, "outputs": outputs, "half": half, "fail": fail}
    made = bundles.create(folder / "toy.qanet", labels="ccp13", input_hw=[HEIGHT, WIDTH])
    facts = {"runtime": "tensorrt", "version": "10.3.0", "precision": "fp16", "targets": ["sm_87"], "options": {}}
    facts |= {"inputs": inputs, "outputs": list(outputs)}
    made.add_engine("engines/toy.plan", json.dumps(spec).encode() if plan is None else plan, facts | entry)
    return made


def people(count):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8), rng.random(count).astype(np.float32)


# ---- What fits is chosen before anything is loaded.


@pytest.mark.parametrize(
    "entry, asked, words",
    [
        ({"targets": ["sm_86"]}, {}, "for this GPU (expected sm_87, got sm_86)"),
        ({"version": "10.13.3"}, {}, "for tensorrt 10.3.0 (expected 10.3.0, got 10.13.3)"),
        ({"precision": "fp32"}, {}, "in fp16 (expected fp16, got fp32)"),
        ({"runtime": "openvino"}, {}, "no tensorrt engine at all (expected tensorrt, got openvino)"),
        ({}, {"outputs": ALL_OUTPUTS}, "--precision fp16 --runtime tensorrt --tail graph"),
        ({"version": "10.1.0", "options": {"engine_host_code_allowed": "true"}}, {}, "machine code of its own"),
        ({"version": "11.0.0", "options": {"engine_host_code_allowed": "true"}}, {}, "got 11.0.0"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_unread(machine, tmp_path, entry, asked, words):
    with pytest.raises(QanetError) as caught:
        engine_from_bundle(make_bundle(tmp_path, **entry), "fp16", asked.get("outputs", KERNEL_TAIL))
    assert words in str(caught.value) and "qanet build" in caught.value.next_command
    assert not machine.calls  # no context, nothing allocated, nothing deserialised


def test_a_changed_file_is_refused_unread(machine, tmp_path):
    made = make_bundle(tmp_path)
    (made.path / "engines/toy.plan").write_bytes(b"other")
    with pytest.raises(QanetError, match="changed after it was made"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)
    assert not machine.calls


def test_a_machine_without_the_libraries_says_what_to_install(machine, tmp_path, monkeypatch):
    with pytest.raises(QanetError, match="no GPU 1"):
        engine_from_bundle(make_bundle(tmp_path), "fp16", gpu=1)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(QanetError, match="TensorRT is not installed"):
        engine_from_bundle(make_bundle(tmp_path), "fp16")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.delattr(sys.modules["pycuda"], "driver")
    with pytest.raises(QanetError, match="PyCUDA or the NVIDIA driver is missing"):
        engine_from_bundle(make_bundle(tmp_path), "fp16")


def test_a_version_compatible_engine_runs_on_a_newer_library_when_allowed(machine, tmp_path):
    made = make_bundle(tmp_path, version="10.1.0", options={"engine_host_code_allowed": "true"})
    engine_from_bundle(made, "fp16", KERNEL_TAIL, allow_host_code=True).close()
    assert machine.host_code is True
    engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL).close()
    assert machine.host_code is False


def test_tensorrt_rtx_is_taken_where_its_engine_is(machine, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(machine, "tensorrt_rtx", "1.7.1.116"))
    made = make_bundle(tmp_path, runtime="tensorrt-rtx", version="1.7.1.116", targets=["sm_86", "sm_87"])
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        assert (engine.runtime, engine.precision, engine.outputs) == ("tensorrt-rtx", "fp16", KERNEL_TAIL)
    with pytest.raises(QanetError, match="--runtime tensorrt-rtx --target sm_87"):
        engine_from_bundle(made, "int8", KERNEL_TAIL)


def test_auto_takes_the_fastest_precision_that_was_built(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(select, "has_cuda", lambda: True)
    made = make_bundle(tmp_path)
    made.manifest["graphs"] = {"int8": "toy.int8.onnx", "fp16": "toy.fp16.onnx"}
    with select.open_engine(made, "auto", "auto", KERNEL_TAIL) as engine:
        assert engine.precision == "fp16"


# ---- Batches.


@pytest.mark.parametrize(
    "profiles", [STATIC, STATIC[::-1], DYNAMIC, [(4, 4)]], ids=["buckets", "reversed", "dynamic", "4"]
)
@pytest.mark.parametrize("outputs", [KERNEL_TAIL, ALL_OUTPUTS], ids=["kernel", "graph"])
def test_every_batch_gives_its_own_rows(machine, tmp_path, profiles, outputs):
    with engine_from_bundle(make_bundle(tmp_path, profiles, outputs, half=["logits"]), "fp16", outputs) as engine:
        kept = []
        for count in (1, 2, 3, 5, 1, 8, 11, 3):  # 11 is split; what is kept must outlive the next call
            crops, scores = people(count)
            kept.append((engine.run(crops, scores), network(crops, scores)))
        memory = machine.calls["mem_alloc"] + machine.calls["pagelocked_empty"]
    for got, expected in kept:
        assert tuple(got) == outputs
        for name in outputs:
            assert got[name].dtype == np.float32 and got[name].flags.owndata and got[name].flags.writeable
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-3 if name == "logits" else 1e-6)
    assert memory == 2 * (len(outputs) + (2 if "quality" in outputs else 1))  # nothing grew after loading


def test_only_what_is_asked_for_comes_back_from_the_gpu(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path, outputs=ALL_OUTPUTS), "fp16", ("iou_scores",)) as engine:
        assert tuple(engine.run(*people(3))) == ("iou_scores",)
        assert (machine.calls["htod"], machine.calls["dtoh"], machine.calls["execute"]) == (2, 1, 1)
        assert (machine.calls["mem_alloc"], machine.calls["pagelocked_empty"]) == (5, 3)


@pytest.mark.parametrize(
    "crops, scores",
    [
        (np.zeros((2, HEIGHT, WIDTH + 1, 3), np.uint8), np.ones(2)),
        (np.zeros((2, HEIGHT, WIDTH, 3), np.float32), np.ones(2)),
        (np.zeros((0, HEIGHT, WIDTH, 3), np.uint8), np.ones(0)),
        (np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), np.ones(3)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(machine, tmp_path, crops, scores):
    with (
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine,
        pytest.raises(QanetError, match="fit the"),
    ):
        engine.run(crops, scores)


def test_threads_take_turns(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        batches, got = [people(count) for count in (1, 2, 3, 5)] * 5, {}
        threads = [threading.Thread(target=lambda i=i: got.update({i: engine.run(*batches[i])})) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert machine.calls["retain"] == 1
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(got[index]["iou_scores"], network(*batch)["iou_scores"])


def test_close_waits_for_the_batch_of_another_thread(machine, tmp_path):
    engine, batch, got = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL), people(3), {}
    machine.gate.clear()
    runner = threading.Thread(target=lambda: got.update(engine.run(*batch)))
    runner.start()
    while not machine.calls["dtoh"]:
        time.sleep(0.001)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive() and not machine.calls["free"]
    machine.gate.set()
    runner.join()
    closer.join()
    np.testing.assert_array_equal(got["iou_scores"], network(*batch)["iou_scores"])
    assert not machine.memory


# ---- Failures and the end.


@pytest.mark.parametrize(
    "call, words",
    [
        ("create_execution_context", "no execution context for batches up to 1"),
        ("set_optimization_profile_async", "optimisation profile 0, for batches up to 1, cannot be chosen"),
        ("set_input_shape", "input crops does not take the shape (1, 8, 6, 3)"),
        ("set_tensor_address", "does not take the address of crops"),
    ],
)
def test_a_step_that_fails_while_loading_is_named_and_undone(machine, tmp_path, call, words):
    with pytest.raises(QanetError) as caught:
        engine_from_bundle(make_bundle(tmp_path, fail=[call]), "fp16", KERNEL_TAIL)
    assert words in str(caught.value) and f"Error Code 1: {call} went wrong" in str(caught.value)


def test_a_plan_the_library_refuses_is_told_in_its_words(machine, tmp_path):
    with pytest.raises(QanetError, match=r"tensorrt refuses the engine file \(.*stdVersionRead"):
        engine_from_bundle(make_bundle(tmp_path, plan=b"not a plan"), "fp16", KERNEL_TAIL)


def test_an_engine_of_another_crop_size_is_refused(machine, tmp_path):
    made = make_bundle(tmp_path)
    made.manifest["input_hw"] = [HEIGHT, WIDTH + 2]
    with pytest.raises(QanetError, match=r"crops of another size \(expected \(8, 8, 3\), got \(8, 6, 3\)\)"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)


@pytest.mark.parametrize("allocations", range(6))
def test_memory_that_runs_out_while_loading_is_given_back(machine, tmp_path, allocations):
    machine.allocations_left = allocations
    with pytest.raises(QanetError, match="GPU memory ran out while loading the engine"):
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)


def test_an_execution_that_fails_is_told_and_leaves_nothing_in_flight(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path, fail=["execute_async_v3"]), "fp16", KERNEL_TAIL) as engine:
        for _ in range(2):
            with pytest.raises(QanetError, match=r"crops of 4 \(.*Error Code 1: execute_async_v3 went wrong"):
                engine.run(*people(3))
            assert machine.calls["push"] == machine.calls["pop"] and not machine.pending


def test_a_kernel_that_fails_is_an_error_of_the_batch_and_frees_all_the_same(machine, tmp_path):
    with (
        pytest.raises(QanetError, match="CUDA failed while running a batch of 2 .*illegal memory access"),
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine,
    ):
        machine.sync_error = "cuStreamSynchronize failed: an illegal memory access was encountered"
        engine.run(*people(2))


def test_closing_twice_is_fine_and_running_afterwards_is_not(machine, tmp_path):
    engine = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)
    assert not machine.calls["free"]
    engine.close()
    engine.close()
    assert machine.calls["free"] == 6 and not machine.memory
    destroyed = [machine.calls[f"{what} destroyed"] for what in ("context", "engine", "stream")]
    assert destroyed == [len(STATIC), 1, 1]
    with pytest.raises(QanetError, match="the engine is closed"):
        engine.run(*people(1))


def test_a_forgotten_engine_is_closed_when_it_is_collected(machine, tmp_path):
    engine = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)
    engine.run(*people(1))
    del engine
    gc.collect()
    assert not machine.memory


# ---- The real libraries.


@pytest.mark.skipif(not importlib.util.find_spec("tensorrt_rtx"), reason="tensorrt_rtx is not installed")
def test_every_name_that_is_called_exists_in_the_real_library():
    import tensorrt_rtx as trt

    engine = ("num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape "
              "num_optimization_profiles get_tensor_profile_shape create_execution_context")  # fmt: skip
    context = "set_optimization_profile_async set_input_shape get_tensor_shape set_tensor_address execute_async_v3"
    names = {trt.ICudaEngine: engine, trt.IExecutionContext: context, trt.ILogger: "log", trt.TensorIOMode: "INPUT",
             trt.Runtime: "deserialize_cuda_engine engine_host_code_allowed", trt: "nptype __version__",
             trt.ExecutionContextAllocationStrategy: "ON_PROFILE_CHANGE"}  # fmt: skip
    missing = [
        f"{owner.__name__}.{name}" for owner in names for name in names[owner].split() if not hasattr(owner, name)
    ]
    assert missing == []


@pytest.mark.gpu
@pytest.mark.skipif(not select.has_cuda(), reason="needs an NVIDIA GPU with its driver, TensorRT and PyCUDA")
@pytest.mark.parametrize("static_buckets", [True, False])
def test_a_real_engine_on_a_real_gpu(tmp_path, static_buckets):
    onnx = pytest.importorskip("onnx", reason="the graph is made with onnx")
    from onnx import TensorProto, helper

    from qanet.export.engines import tensorrt
    from qanet.runtime.engines.cuda_buffers import open_gpu

    nodes = [
        helper.make_node("Cast", ["crops"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["logits"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["logits"], ["iou_scores"], axes=[1, 2, 3], keepdims=0),
    ]
    crops_info = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])
    scores_info = helper.make_tensor_value_info("box_scores", TensorProto.FLOAT, ["N"])
    shapes = {"logits": ["N", 3, HEIGHT, WIDTH], "iou_scores": ["N"]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "toy", [crops_info, scores_info], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "toy.onnx")
    runtime = "tensorrt" if importlib.util.find_spec("tensorrt") else "tensorrt-rtx"
    targets = (open_gpu().target,)
    built = tensorrt.build(tmp_path / "toy.onnx", runtime=runtime, targets=targets, static_buckets=static_buckets,
                           max_batch=8, outputs=KERNEL_TAIL)  # fmt: skip
    made = make_bundle(tmp_path, plan=built.data, runtime=runtime, version=built.version, targets=list(built.targets))
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        for count in (1, 2, 3, 5, 11):
            crops, scores = people(count)
            got = engine.run(crops, scores)
            np.testing.assert_allclose(got["logits"], crops.transpose(0, 3, 1, 2), rtol=1e-5)
            np.testing.assert_allclose(got["iou_scores"], crops.mean((1, 2, 3)), rtol=1e-4)
